package objects_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.etcd.io/etcd/client/v3/kubernetes"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/features"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3"
	upstream "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	featuregatetesting "k8s.io/component-base/featuregate/testing"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/memory"
	"tallyman/storage/objects"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
	"tallyman/storage/storagetest"
)

// backends are the implementations that have to pass everything in this file. Each starts its
// servers for one test and its subtests, and opens stores in that.
var backends = map[string]func(*testing.T) storagetest.Open{
	"memory": func(*testing.T) storagetest.Open {
		return func(_ *testing.T, now func() time.Time) storage.Backend { return memory.New(memory.Options{Now: now}) }
	},
	"bolt": func(*testing.T) storagetest.Open {
		return func(t *testing.T, now func() time.Time) storage.Backend {
			b, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db"), Now: now})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	},
	"redis":  server("redis-server"),
	"valkey": server("valkey-server"),
}

// selected are the backends of this run: in a short one the one in memory, the fast double.
func selected() map[string]func(*testing.T) storagetest.Open {
	if testing.Short() {
		return map[string]func(*testing.T) storagetest.Open{"memory": backends["memory"]}
	}
	return backends
}

// server starts a server of that flavor; each store in it has its own prefix.
func server(flavor string) func(*testing.T) storagetest.Open {
	return func(t *testing.T) storagetest.Open {
		addr := redistest.Start(t, flavor).Addr
		return func(t *testing.T, now func() time.Time) storage.Backend {
			b, err := redis.Open(t.Context(), redis.Options{
				Client: goredis.UniversalOptions{Addrs: []string{addr}}, Prefix: rand.Text(), Now: now, CacheBytes: 1 << 20,
			})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
}

var (
	suiteScheme = runtime.NewScheme()
	suiteCodecs = serializer.NewCodecFactory(suiteScheme, serializer.WithSerializer(cbor.NewSerializerInfo))
	suiteCodec  = suiteCodecs.LegacyCodec(examplev1.SchemeGroupVersion)
)

func init() {
	metav1.AddToGroupVersion(suiteScheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(suiteScheme))
	utilruntime.Must(examplev1.AddToScheme(suiteScheme))
	suiteScheme.AddKnownTypes(example.SchemeGroupVersion, &example.PodList{})
	suiteScheme.AddKnownTypes(examplev1.SchemeGroupVersion, &examplev1.PodList{})
}

// env is one Store under upstream's suite, with the hooks that the suite wants.
type env struct {
	k8sstorage.Interface
	backend     storage.Backend
	followed    func() int64 // the revision up to which watches have been told
	transformer *switchable
	reads       *upstream.PrefixTransformer
	recorder    *upstream.KubernetesRecorder
}

var _ upstream.InterfaceWithTransformerOverride = (*env)(nil)

// switchable is a value.Transformer that a test replaces while the store runs.
type switchable struct {
	mu sync.Mutex
	t  value.Transformer
}

func (s *switchable) current() value.Transformer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.t
}

func (s *switchable) swap(t value.Transformer) (previous value.Transformer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	previous, s.t = s.t, t
	return previous
}

func (s *switchable) TransformFromStorage(ctx context.Context, data []byte, c value.Context) ([]byte, bool, error) {
	return s.current().TransformFromStorage(ctx, data, c)
}

func (s *switchable) TransformToStorage(ctx context.Context, data []byte, c value.Context) ([]byte, error) {
	return s.current().TransformToStorage(ctx, data, c)
}

func (e *env) UpdateTransformer(modify upstream.TransformerModifier) func() {
	before := e.transformer.current()
	e.transformer.swap(modify(before))
	return func() { e.transformer.swap(before) }
}

func (e *env) UpdatePrefixTransformer(modify upstream.PrefixTransformerModifier) func() {
	before := e.transformer.current().(*upstream.PrefixTransformer)
	changed := *before // a copy, as upstream's own tests make
	e.transformer.swap(modify(&changed))
	return func() { e.transformer.swap(before) }
}

// recorded tells the suite's recorder of each page read.
type recorded struct {
	storage.Backend
	recorder *upstream.KubernetesRecorder
}

func (r recorded) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	_, _ = r.recorder.List(ctx, req.From, kubernetes.ListOptions{Limit: int64(req.Limit), Revision: req.Revision})
	return r.Backend.Scan(ctx, req)
}

type noClient struct{ kubernetes.Interface }

func (noClient) List(context.Context, string, kubernetes.ListOptions) (kubernetes.ListResponse, error) {
	return kubernetes.ListResponse{}, nil
}

// newEnv opens a store whose revisions are dense, as etcd's are: the suite
// counts them.
func newEnv(t *testing.T, open storagetest.Open) *env {
	t.Helper()
	e := &env{
		backend:  open(t, func() time.Time { return time.UnixMicro(0) }),
		reads:    upstream.NewPrefixTransformer([]byte("test!"), false),
		recorder: upstream.NewKubernetesRecorder(noClient{}),
	}
	e.transformer = &switchable{t: e.reads}
	s, err := objects.New(objects.Options{
		Backend:        recorded{e.backend, e.recorder},
		Codec:          suiteCodec,
		ResourcePrefix: "/pods/",
		GroupResource:  schema.GroupResource{Resource: "pods"},
		NewFunc:        func() runtime.Object { return &example.Pod{} },
		Transformer:    e.transformer,
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Interface, e.followed = s, s.Followed
	t.Cleanup(func() {
		s.Close()
		if err := e.backend.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

var foreign atomic.Int64

// increaseRV writes a key of another resource.
func (e *env) increaseRV(ctx context.Context, t *testing.T) int64 {
	t.Helper()
	result, err := e.backend.Commit(ctx, storage.Mutation{Key: fmt.Sprintf("/foreign/%d", foreign.Add(1)), Value: storage.Body([]byte("x"))})
	if err != nil {
		t.Fatal(err)
	}
	return result.Revision
}

// compact drops the log up to resourceVersion. It moves the revision on first, as etcd's
// compactor does by writing its own key. Entries that were read already are delivered before:
// a watch that begins among them would be served all of them, and not the error that the suite
// waits for.
func (e *env) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	t.Helper()
	revision, err := e.Versioner().ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	e.increaseRV(ctx, t)
	window, err := e.backend.Window(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for followed := e.followed(); followed > 0 && followed < window.Current; followed = e.followed() {
		time.Sleep(time.Millisecond)
	}
	if err := e.backend.Compact(ctx, int64(revision)); err != nil {
		t.Fatal(err)
	}
}

// calls checks how many stored objects a list has looked at.
func (e *env) calls(t *testing.T, _, want uint64) {
	t.Helper()
	if got := e.reads.GetReadsAndReset(); got != want {
		t.Errorf("the list read %d objects, want %d", got, want)
	}
}

// storedWithoutVersion checks that stored bytes hold no resourceVersion.
func (e *env) storedWithoutVersion(ctx context.Context, t *testing.T, key string) {
	t.Helper()
	entry, _, err := storage.GetEntry(ctx, e.backend, key, storage.Read{})
	if err != nil || entry == nil {
		t.Fatalf("nothing is stored at %s: %v", key, err)
	}
	obj, err := runtime.Decode(suiteCodec, entry.Value.Body()[len("test!"):])
	if err != nil {
		t.Fatal(err)
	}
	if version := obj.(*example.Pod).ResourceVersion; version != "" {
		t.Errorf("the stored bytes of %s hold resourceVersion %q", key, version)
	}
}

var errCorrupt = fmt.Errorf("bits flipped: %w", storage.ErrCorrupt)

// TestUpstreamSuite runs the functional tests of k8s.io/apiserver/pkg/storage/testing.
//
// Not run, and why:
//   - RunTestCreateWithTTL, RunTestGuaranteedUpdateWithTTL: objects do not
//     expire here (package comment of storage).
func TestUpstreamSuite(t *testing.T) {
	plain := func(f func(context.Context, *testing.T, k8sstorage.Interface)) func(context.Context, *testing.T, *env) {
		return func(ctx context.Context, t *testing.T, e *env) { f(ctx, t, e.Interface) }
	}
	const noCache = false
	tests := map[string]func(context.Context, *testing.T, *env){
		"Create": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestCreate(ctx, t, e, e.storedWithoutVersion)
		},
		"CreateWithKeyExist":                      plain(upstream.RunTestCreateWithKeyExist),
		"Get":                                     plain(upstream.RunTestGet),
		"UnconditionalDelete":                     plain(upstream.RunTestUnconditionalDelete),
		"ConditionalDelete":                       plain(upstream.RunTestConditionalDelete),
		"DeleteWithSuggestion":                    plain(upstream.RunTestDeleteWithSuggestion),
		"DeleteWithSuggestionAndConflict":         plain(upstream.RunTestDeleteWithSuggestionAndConflict),
		"DeleteWithConflict":                      plain(upstream.RunTestDeleteWithConflict),
		"DeleteWithSuggestionOfDeletedObject":     plain(upstream.RunTestDeleteWithSuggestionOfDeletedObject),
		"ValidateDeletionWithSuggestion":          plain(upstream.RunTestValidateDeletionWithSuggestion),
		"ValidateDeletionWithOnlySuggestionValid": plain(upstream.RunTestValidateDeletionWithOnlySuggestionValid),
		"PreconditionalDeleteWithSuggestion":      plain(upstream.RunTestPreconditionalDeleteWithSuggestion),
		"PreconditionalDeleteWithOnlySuggestionPass": plain(
			upstream.RunTestPreconditionalDeleteWithOnlySuggestionPass),
		"List": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestList(ctx, t, e.Interface, e.compact, noCache, e.recorder)
		},
		"ConsistentList": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestConsistentList(ctx, t, e.Interface, e.increaseRV, noCache, true, noCache)
		},
		"GetListNonRecursive": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestGetListNonRecursive(ctx, t, e.increaseRV, e.Interface)
		},
		"GetListRecursivePrefix": plain(upstream.RunTestGetListRecursivePrefix),
		"GetListWithoutErrorAggregation": func(ctx context.Context, t *testing.T, e *env) {
			featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.AllowUnsafeMalformedObjectDeletion, false)
			upstream.RunTestGetListWithoutErrorAggregation(ctx, t, e, errCorrupt)
		},
		"GetListWithErrorAggregation": func(ctx context.Context, t *testing.T, e *env) {
			featuregatetesting.SetFeatureGateDuringTest(t, utilfeature.DefaultFeatureGate, features.AllowUnsafeMalformedObjectDeletion, true)
			upstream.RunTestGetListWithErrorAggregation(ctx, t, e, errCorrupt)
		},
		"ListContinuation": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestListContinuation(ctx, t, e.Interface, e.calls)
		},
		"ListPaginationRareObject": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestListPaginationRareObject(ctx, t, e.Interface, e.calls)
		},
		"ListContinuationWithFilter": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestListContinuationWithFilter(ctx, t, e.Interface, e.calls)
		},
		"ListInconsistentContinuation": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestListInconsistentContinuation(ctx, t, e.Interface, e.compact)
		},
		"ListResourceVersionMatch": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestListResourceVersionMatch(ctx, t, e)
		},
		"GuaranteedUpdate": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestGuaranteedUpdate(ctx, t, e, e.storedWithoutVersion)
		},
		"GuaranteedUpdateChecksStoredData": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestGuaranteedUpdateChecksStoredData(ctx, t, e)
		},
		"GuaranteedUpdateWithConflict":              plain(upstream.RunTestGuaranteedUpdateWithConflict),
		"GuaranteedUpdateWithSuggestionAndConflict": plain(upstream.RunTestGuaranteedUpdateWithSuggestionAndConflict),
		"TransformationFailure": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestTransformationFailure(ctx, t, e)
		},
		"Stats": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestStats(ctx, t, e.Interface, suiteCodec, e.transformer, noCache)
		},
		"ListPaging":          plain(upstream.RunTestListPaging),
		"NamespaceScopedList": plain(upstream.RunTestNamespaceScopedList),
		"CompactRevision": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestCompactRevision(ctx, t, e.Interface, e.increaseRV, e.compact)
		},
		"KeySchema": plain(upstream.RunTestKeySchema),
		"DeleteExpectedTransformOrDecodeError": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestDeleteExpectedTransformOrDecodeError(ctx, t, e.Interface, e.setFailing)
		},
		"DeleteWithConflictAndMissingExpectedTransformOrDecodeError": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError(ctx, t, e.Interface, e.setFailing)
		},
		"DeleteWithSuggestionAndMissingExpectedTransformOrDecodeError": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError(ctx, t, e.Interface)
		},
		"Watch": plain(upstream.RunTestWatch),
		"WatchFromZero": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestWatchFromZero(ctx, t, e.Interface, e.compact)
		},
		"DeleteTriggerWatch":    plain(upstream.RunTestDeleteTriggerWatch),
		"WatchFromNonZero":      plain(upstream.RunTestWatchFromNonZero),
		"DelayedWatchDelivery":  plain(upstream.RunTestDelayedWatchDelivery),
		"WatchContextCancel":    plain(upstream.RunTestWatchContextCancel),
		"WatcherTimeout":        plain(upstream.RunTestWatcherTimeout),
		"WatchInitialization":   plain(upstream.RunTestWatchInitializationSignal),
		"ClusterScopedWatch":    plain(upstream.RunTestClusterScopedWatch),
		"NamespaceScopedWatch":  plain(upstream.RunTestNamespaceScopedWatch),
		"WatchBookmarksCorrect": plain(upstream.RunTestOptionalWatchBookmarksWithCorrectResourceVersion),
		"WatchDeleteEventObjectHaveLatestRV": plain(
			upstream.RunTestWatchDeleteEventObjectHaveLatestRV),
		"WatchError": func(ctx context.Context, t *testing.T, e *env) { upstream.RunTestWatchError(ctx, t, e) },
		"WatchWithUnsafeDelete": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestWatchWithUnsafeDelete(ctx, t, e, errCorrupt)
		},
		"ProgressNotify": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunOptionalTestProgressNotify(ctx, t, e.Interface, e.increaseRV)
		},
		"WatchDispatchBookmarkEvents": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunTestWatchDispatchBookmarkEvents(ctx, t, e.Interface, true)
		},
		"SendInitialEventsBackwardCompatibility": plain(upstream.RunSendInitialEventsBackwardCompatibility),
		"WatchSemantics":                         plain(upstream.RunWatchSemantics),
		"WatchSemanticInitialEventsExtended":     plain(upstream.RunWatchSemanticInitialEventsExtended),
		"WatchListMatchSingle":                   plain(upstream.RunWatchListMatchSingle),
		"WatchErrorIsBlockingFurtherEvents": func(ctx context.Context, t *testing.T, e *env) {
			upstream.RunWatchErrorIsBlockingFurtherEvents(ctx, t, e)
		},
	}
	for backend, start := range selected() {
		t.Run(backend, func(t *testing.T) {
			open := start(t)
			for name, test := range tests {
				t.Run(name, func(t *testing.T) {
					test(t.Context(), t, newEnv(t, open))
				})
			}
		})
	}
}

// setFailing makes stored objects unreadable, or readable again.
func (e *env) setFailing(failing bool) {
	if failing {
		e.transformer.swap(etcd3.WithCorruptObjErrorHandlingTransformer(unreadable{}))
		return
	}
	e.transformer.swap(e.reads)
}

type unreadable struct{ value.Transformer }

func (unreadable) TransformFromStorage(context.Context, []byte, value.Context) ([]byte, bool, error) {
	return nil, false, errCorrupt
}

func (unreadable) TransformToStorage(_ context.Context, data []byte, _ value.Context) ([]byte, error) {
	return data, nil
}
