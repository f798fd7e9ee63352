// Package objects is the Store of Kubernetes objects: k8s.io/apiserver's storage.Interface,
// implemented once, on a storage.Backend.
//
// Store has Kubernetes' semantics for reads, optimistic concurrency, paging and watches. It
// knows keys, bytes and revisions, and nothing about images.
//
// # Guarantees
//
//   - Reads are linearizable: they see every commit acknowledged before them.
//   - An object is encoded once, when it is written. GET, LIST and WATCH answers
//     in JSON are made of those bytes (see Encoded and EncodedList).
//   - A watcher sees every change after its resourceVersion exactly once and in
//     order, or is told 410 Gone (or to reconnect); nothing is skipped silently.
//   - One follower for each Store reads the log for any number of watches.
//
// # Caveats
//
// Objects do not expire: the ttl argument of Create and GuaranteedUpdate is
// ignored, as no resource served here has one.
package objects

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"

	"tallyman/storage"
)

// Options configures New.
type Options struct {
	// Backend holds the bytes. Required. The caller closes it, after the Store.
	Backend storage.Backend
	// Codec turns objects into the stored JSON and back. Required.
	Codec runtime.Codec
	// Decode, if set, decodes stored JSON into an empty object as Codec does, and faster. It returns
	// false for JSON that is left to Codec, and may have changed into.
	Decode func(data []byte, into runtime.Object) bool
	// Encoder is the encoder of answers that the stored JSON can stand for:
	// an answer asked of an encoder with the same Identifier is made of stored
	// bytes. Nil means that every answer is decoded and encoded.
	Encoder runtime.Encoder
	// ResourcePrefix starts every key and ends with a slash, such as
	// "/images/". Required.
	ResourcePrefix string
	// GroupResource names the resource in errors and metrics.
	GroupResource schema.GroupResource
	// NewFunc returns an empty object of the stored type. Required.
	NewFunc func() runtime.Object
	// Index says by which terms objects are found. Nil means that lists with a selector
	// read every object.
	Index *Index
	// Brief, if set, is stored beside each object, for answers that need no more. Objects that a
	// Transformer encrypts have none.
	Brief *Brief
	// SharedRevisions says that one change may be one of several objects, each with its revision. A watch
	// that goes on from such a revision gets all of its events again: the client may have seen some.
	SharedRevisions bool
	// SkipCorrupt makes lists and watches skip corrupt objects, with a log line and a
	// metric, but for lists in brief. By default they fail, as in Kubernetes' etcd3 store.
	SkipCorrupt bool
	// Renew, if set, may return an object that takes the place of one that a client deletes, in the
	// same commit; nil deletes. The commit has the conditions.
	Renew func(ctx context.Context, obj runtime.Object) (renewed runtime.Object, conditions []storage.Mutation, err error)
	// Transformer encrypts at rest. Nil leaves the bytes as they are.
	Transformer value.Transformer
}

// Validate returns an error if a required field of o is missing.
func (o *Options) Validate() error {
	switch {
	case o.Backend == nil:
		return errors.New("storage: Backend is required")
	case o.Codec == nil:
		return errors.New("storage: Codec is required")
	case o.NewFunc == nil:
		return errors.New("storage: NewFunc is required")
	case len(o.ResourcePrefix) < 2 || o.ResourcePrefix[len(o.ResourcePrefix)-1] != '/':
		return fmt.Errorf("storage: ResourcePrefix %q must end with a slash and not be the root", o.ResourcePrefix)
	}
	return nil
}

// Store is a storage.Interface over a Backend. Create it with New.
type Store struct {
	opts       Options
	backend    storage.Backend
	versioner  k8sstorage.Versioner
	encoder    runtime.Identifier // of Options.Encoder
	follower   *follower
	indexer    *indexer
	compacted  atomic.Int64 // last Window.Compacted seen
	logCorrupt rate.Sometimes
	distrusted atomic.Bool // a list had other sizes than those that are stored beside objects
}

var _ k8sstorage.Interface = (*Store)(nil)

// New returns a Store over o.Backend. Close it to end its watches.
func New(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.Transformer != nil {
		o.Brief = nil
	} else {
		o.Transformer = identity.NewEncryptCheckTransformer()
	}
	s := &Store{opts: o, backend: instrument(o.Backend), versioner: k8sstorage.APIObjectVersioner{}, logCorrupt: rate.Sometimes{First: 10, Interval: time.Minute}}
	if o.Encoder != nil {
		s.encoder = o.Encoder.Identifier()
	}
	s.follower, s.indexer = newFollower(s), newIndexer(s)
	return s, nil
}

// Close ends all watches; their clients see a stream that ended well, and come
// again. The Backend stays open.
func (s *Store) Close() { s.follower.close() }

// Versioner implements storage.Interface.
func (s *Store) Versioner() k8sstorage.Versioner { return s.versioner }

// ReadinessCheck implements storage.Interface. It asks the backend.
func (s *Store) ReadinessCheck() error {
	_, err := s.window(context.Background())
	return err
}

// GetCurrentResourceVersion implements storage.Interface.
func (s *Store) GetCurrentResourceVersion(ctx context.Context) (uint64, error) {
	w, err := s.window(ctx)
	return uint64(w.Current), err
}

// CompactRevision implements storage.Interface. It returns the start of the log
// as last seen, and 0 before anything was dropped from it.
func (s *Store) CompactRevision() int64 {
	_, _ = s.window(context.Background()) // on failure the last known answer stands
	return s.compacted.Load()
}

func (s *Store) window(ctx context.Context) (storage.Window, error) {
	w, err := s.backend.Window(ctx)
	if err != nil {
		return w, Unavailable(err)
	}
	s.compacted.Store(w.Compacted)
	return w, nil
}

// Stats implements storage.Interface. It counts objects; sizes are not tracked.
func (s *Store) Stats(ctx context.Context) (stats k8sstorage.Stats, err error) {
	from, to := prefixRange(s.opts.ResourcePrefix)
	page, err := s.backend.Scan(ctx, storage.ScanRequest{From: from, To: to, Limit: 1, KeysOnly: true, Count: true})
	if err == nil {
		stats.ObjectCount = page.Count
	}
	return stats, Unavailable(err)
}

// EnableResourceSizeEstimation implements storage.Interface. Only upstream's watch cache needs estimates.
func (s *Store) EnableResourceSizeEstimation(keys k8sstorage.KeysFunc) error {
	if keys == nil {
		return errors.New("KeysFunc cannot be nil")
	}
	return nil
}

// RequestWatchProgress implements storage.Interface: every watch that asked for
// ProgressNotify gets a bookmark.
func (s *Store) RequestWatchProgress(context.Context) error {
	s.follower.requestProgress()
	return nil
}

// state is one object as it is in the store.
type state struct {
	object   runtime.Object
	data     []byte // decrypted
	revision int64  // 0 if the object does not exist
	stale    bool   // the transformer wants it written again
}

// prefixRange returns the key range of everything that starts with prefix.
func prefixRange(prefix string) (from, to string) {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return prefix, string(end[:i+1])
		}
	}
	return prefix, "\xff\xff\xff\xff"
}

// stateOf returns the state that a caller's object stands for.
func (s *Store) stateOf(obj runtime.Object) (*state, error) {
	version, err := s.versioner.ObjectResourceVersion(obj)
	if err != nil {
		return nil, err
	}
	st := &state{object: obj, revision: int64(version)}
	if err := s.versioner.PrepareObjectForStorage(obj); err != nil {
		return nil, err
	}
	if st.data, err = runtime.Encode(s.opts.Codec, obj); err != nil {
		return nil, err
	}
	return st, s.versioner.UpdateObject(obj, version)
}

// newObject returns an empty object of kind.
func (s *Store) newObject(kind reflect.Type) runtime.Object {
	obj := reflect.New(kind).Interface().(runtime.Object)
	if u, ok := obj.(runtime.Unstructured); ok {
		return u.NewEmptyInstance()
	}
	return obj
}

// commit encrypts data, the encoding of obj, and writes it under key if key is at
// revision expect and the conditions of ctx hold. With a Batch, all of that is left to it.
func (s *Store) commit(ctx context.Context, key string, expect int64, obj runtime.Object, data []byte) (*storage.CommitResult, error) {
	stored, err := s.opts.Transformer.TransformToStorage(ctx, data, value.DefaultContext(key))
	if err != nil {
		return nil, k8sstorage.NewInternalError(err)
	}
	m := storage.Mutation{Key: key, Expect: expect, Value: append(storage.Body(stored), s.brief(obj, data)...)}
	if index := s.opts.Index; index != nil {
		m.Terms = []storage.TermChange{{Group: index.Group, Terms: index.Terms(obj)}}
	}
	m.Terms = append(m.Terms, storage.TermsOf(ctx)...)
	return s.write(ctx, m)
}

// write makes a mutation if the conditions of ctx hold. With a Batch, that is left to it.
func (s *Store) write(ctx context.Context, m storage.Mutation) (*storage.CommitResult, error) {
	if batch := storage.BatchOf(ctx); batch != nil {
		batch.Add(m, storage.Conditions(ctx)...)
		return &storage.CommitResult{Succeeded: true, Revision: m.Expect}, nil
	}
	result, err := s.backend.Commit(ctx, append([]storage.Mutation{m}, storage.Conditions(ctx)...)...)
	if err == nil && !result.Succeeded && result.Conflict > 0 {
		return nil, storage.ErrConditionFailed
	}
	return result, Unavailable(err)
}

// remove deletes an object, or puts the one in its place that Options.Renew returns. A Batch is one of
// the registry, which renews nothing.
func (s *Store) remove(ctx context.Context, key string, current *state, corrupt bool) (*storage.CommitResult, error) {
	if s.opts.Renew != nil && !corrupt && storage.BatchOf(ctx) == nil {
		renewed, conditions, err := s.opts.Renew(ctx, current.object)
		if err != nil {
			return nil, Unavailable(err)
		}
		ctx = storage.WithConditions(ctx, func() []storage.Mutation { return conditions })
		if renewed != nil {
			data, err := runtime.Encode(s.opts.Codec, renewed)
			if err != nil {
				return nil, err
			}
			return s.commit(ctx, key, current.revision, renewed, data)
		}
	}
	return s.write(ctx, storage.Mutation{Operation: storage.Delete, Key: key, Expect: current.revision})
}
