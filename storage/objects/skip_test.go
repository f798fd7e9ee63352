package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/objects"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

func newPod() runtime.Object { return &example.Pod{} }

// countedLog counts the changes that are read.
type countedLog struct {
	storage.Backend
	changes atomic.Int64
}

// Log implements storage.Backend.
func (c *countedLog) Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error) {
	changes, err := c.Backend.Log(ctx, req)
	c.changes.Add(int64(len(changes)))
	return changes, err
}

// TestSkipCorrupt: a value that cannot be read harms itself only: lists and watches go on
// without it, a read of it is an error that says so, and it can be deleted.
func TestSkipCorrupt(t *testing.T) {
	server := redistest.Start(t, "redis-server")
	b, err := redis.Open(t.Context(), redis.Options{Client: goredis.UniversalOptions{Addrs: []string{server.Addr}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	s, err := objects.New(objects.Options{
		Backend: b, Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: newPod, SkipCorrupt: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	start := mustCreate(t, s, "a")
	mustCreate(t, s, "b")
	mustCreate(t, s, "c")
	body := server.Command(t, "HGET", "{tallyman}:value:/pods/b", "body").(string)
	server.Command(t, "HSET", "{tallyman}:value:/pods/b", "body", body[:len(body)-3]+"\xff\xff\xff")

	for range 2 { // once read from the log, once from the ring
		if events, err := told(t, watchFrom(t, s, start), "c"); err != nil || strings.Join(events, ", ") != "DELETED b, ADDED c" {
			t.Errorf("a watch over it: %v, %q", err, events)
		}
	}
	for _, predicate := range []k8sstorage.SelectionPredicate{k8sstorage.Everything, {Label: labels.Everything(), Field: fields.Everything(), Limit: 10}} {
		options := k8sstorage.ListOptions{Recursive: true, Predicate: predicate}
		list := &example.PodList{}
		if err := s.GetList(t.Context(), "/pods/", options, list); err != nil || len(list.Items) != 2 {
			t.Errorf("a list: %d items, %v", len(list.Items), err)
		}
		encoded, err := s.ListEncoded(t.Context(), "/pods/", options, jsonAnswer(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := runtime.Encode(jsonEncoder(), encoded); err != nil || strings.Count(string(text), `"name":`) != 2 {
			t.Errorf("a list in stored bytes: %s, %v", text, err)
		}
	}
	if err := s.Get(t.Context(), "/pods/b", k8sstorage.GetOptions{}, &example.Pod{}); !k8sstorage.IsCorruptObject(err) {
		t.Errorf("a read of it: %v", err)
	}
	if err := s.Delete(t.Context(), "/pods/b", &example.Pod{}, nil, k8sstorage.ValidateAllObjectFunc, nil, k8sstorage.DeleteOptions{ExpectTransformOrDecodeError: true}); err != nil {
		t.Errorf("its deletion: %v", err)
	}
	mustCreate(t, s, "b")
}

// measured notes how much of values a page of a scan held.
type measured struct {
	storage.Backend
	bytes int
}

// Scan implements storage.Backend.
func (m *measured) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	r, err := m.Backend.Scan(ctx, req)
	if err == nil {
		size := 0
		for i := range r.Entries {
			size += r.Entries[i].Value.Size()
		}
		m.bytes = max(m.bytes, size)
	}
	return r, err
}

// TestListMemory: a list takes the memory of pages of a few MiB, however large the objects
// and the limit, and no page more of them than it returns.
func TestListMemory(t *testing.T) {
	b, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db")})
	if err != nil {
		t.Fatal(err)
	}
	m := &measured{Backend: b}
	s := newStore(t, m)
	const n = 80
	createLarge(t, s, "p", n, 60<<10)
	for name, test := range map[string]struct {
		label string
		limit int64
		want  int
	}{
		"limit=1, nothing matches":     {"a=none", 1, 0},
		"limit=10^9, nothing matches":  {"a=none", 1e9, 0},
		"limit=10^9, everything does":  {"a!=none", 1e9, n},
		"limit=-1":                     {"", -1, n},
		"limit=-2^63":                  {"", -1 << 63, n},
		"limit=2^63-1":                 {"", 1<<63 - 1, n},
		"limit=75, everything matches": {"a!=none", 75, 75},
	} {
		t.Run(name, func(t *testing.T) {
			selector, err := labels.Parse(test.label)
			if err != nil {
				t.Fatal(err)
			}
			predicate := k8sstorage.SelectionPredicate{Label: selector, Field: fields.Everything(), GetAttrs: podAttributes, Limit: test.limit}
			options := k8sstorage.ListOptions{Recursive: true, Predicate: predicate}
			for name, answer := range listAnswers() {
				m.bytes = 0
				list, err := s.ListEncoded(t.Context(), "/pods/", options, answer.ListAnswer, nil)
				if err != nil {
					t.Fatal(err)
				}
				got, err := runtime.Encode(answer.encoder, list)
				if err != nil {
					t.Fatal(err)
				}
				if m.bytes > storage.MaxPageBytes+200<<10 {
					t.Errorf("%s: a page held %d bytes of values", name, m.bytes)
				}
				whole := &example.PodList{}
				if err := s.GetList(t.Context(), "/pods/", options, whole); err != nil || len(whole.Items) != test.want {
					t.Fatalf("%d items, want %d, %v", len(whole.Items), test.want, err)
				}
				if want, err := runtime.Encode(answer.encoder, whole); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes differ from the %d of the ordinary encoder, %v", name, len(got), len(want), err)
				}
			}
		})
	}
}

// TestListLongerThanHistory: a list in progress holds the history that it needs, also
// between the two readings of a format that states the number of items.
func TestListLongerThanHistory(t *testing.T) {
	b, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db"), History: storage.HistoryBounds{MinAge: 1, MaxEntries: 50}})
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, b)
	createLarge(t, s, "p", 300, 30_000)
	written := 0
	write := func(n int) {
		for range n {
			written++
			if _, err := b.Commit(t.Context(), storage.Mutation{Key: fmt.Sprintf("/foreign/%d", written), Value: storage.Body([]byte("x"))}); err != nil {
				t.Error(err)
			}
		}
	}
	for name, answer := range listAnswers() {
		ordinary := answer.Item
		if ordinary != nil {
			answer.Item = func(dst []byte, e *objects.Encoded) ([]byte, error) {
				write(1)
				return ordinary(dst, e)
			}
		}
		list, err := s.ListEncoded(t.Context(), "/pods/", k8sstorage.ListOptions{Recursive: true, Predicate: k8sstorage.Everything}, answer.ListAnswer, nil)
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		out := writerFunc(func(p []byte) (int, error) { // a client that takes the list slowly
			write(30)
			size += len(p)
			return len(p), nil
		})
		if err := list.CacheEncode(answer.Encoder, nil, out); err != nil || size < 300*30_000 {
			t.Errorf("%s: after %d bytes of an answer 200, and %d commits: %v", name, size, written, err)
		}
	}
	if written < 100 {
		t.Errorf("only %d commits", written)
	}
}

type writerFunc func([]byte) (int, error)

// Write implements io.Writer.
func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestAbortedList: a list that fails after its beginning was sent is not ended as if it
// were whole.
func TestAbortedList(t *testing.T) {
	b, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db")})
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, b)
	createLarge(t, s, "p", 100, 30_000)
	list, err := s.ListEncoded(t.Context(), "/pods/", k8sstorage.ListOptions{Recursive: true, Predicate: k8sstorage.Everything}, jsonAnswer(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if reason, _ := recover().(error); !errors.Is(reason, http.ErrAbortHandler) {
			t.Errorf("the connection is not aborted: %v", reason)
		}
	}()
	err = list.CacheEncode(jsonEncoder().Identifier(), nil, writerFunc(func(p []byte) (int, error) {
		w, err := b.Window(context.Background())
		if err != nil {
			return 0, err
		}
		// The history that the rest of the list needs goes.
		_, _ = b.Commit(context.Background(), storage.Mutation{Key: "/foreign", Value: storage.Body([]byte("x")), Expect: storage.AnyRevision})
		return len(p), b.Compact(context.Background(), w.Current+1)
	}))
	t.Errorf("the list ended with %v", err)
}
