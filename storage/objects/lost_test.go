package objects_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"tallyman/storage/bolt"
	"tallyman/storage/objects"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

func mustCreate(t *testing.T, s *objects.Store, name string) (resourceVersion string) {
	t.Helper()
	out := &example.Pod{}
	pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"a": strings.Repeat("compressible ", 100)}}}
	if err := s.Create(t.Context(), "/pods/"+name, pod, out, 0); err != nil {
		t.Fatal(err)
	}
	return out.ResourceVersion
}

// watchFrom watches all pods after a resourceVersion.
func watchFrom(t *testing.T, s *objects.Store, resourceVersion string) watch.Interface {
	t.Helper()
	w, err := s.Watch(t.Context(), "/pods/", k8sstorage.ListOptions{ResourceVersion: resourceVersion, Recursive: true, Predicate: k8sstorage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// told waits for the event that ends a watch, or for one about the object called last.
func told(t *testing.T, w watch.Interface, last string) (events []string, err error) {
	t.Helper()
	timeout := time.After(time.Minute)
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				return append(events, "(ended)"), nil
			}
			if e.Type == watch.Error {
				return events, apierrors.FromObject(e.Object)
			}
			name := e.Object.(metav1.ObjectMetaAccessor).GetObjectMeta().GetName()
			if events = append(events, fmt.Sprint(e.Type, " ", name)); name == last {
				return events, nil
			}
		case <-timeout:
			return append(events, "(nothing more)"), nil
		}
	}
}

// TestWatchFromLostHistory: a client whose resourceVersion is of a history that was lost
// (a copy of the file was put back, a replica without the last write became master) is
// told to list again, never gone on with.
func TestWatchFromLostHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	openAt := func(t *testing.T, now func() time.Time) *objects.Store {
		t.Helper()
		b, err := bolt.Open(bolt.Options{Path: path, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return newStore(t, b)
	}
	closed := func(t *testing.T, write func(*objects.Store)) {
		t.Helper()
		b, err := bolt.Open(bolt.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		s, err := objects.New(objects.Options{Backend: b, Codec: suiteCodec, ResourcePrefix: "/pods/", NewFunc: newPod})
		if err != nil {
			t.Fatal(err)
		}
		write(s)
		s.Close()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var known string
	closed(t, func(s *objects.Store) { mustCreate(t, s, "kept") })
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	closed(t, func(s *objects.Store) { known = mustCreate(t, s, "lost") }) // a client lists now
	restore := func(t *testing.T) {
		t.Helper()
		if err := os.WriteFile(path, backup, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("older than the store", func(t *testing.T) {
		restore(t)
		s := openAt(t, nil)
		mustCreate(t, s, "other")
		w := watchFrom(t, s, known)
		mustCreate(t, s, "last")
		if events, err := told(t, w, "last"); !apierrors.IsResourceExpired(err) {
			t.Errorf("%v, %q: the client keeps an object that is not there", err, events)
		}
	})
	t.Run("newer than the store", func(t *testing.T) {
		restore(t)
		s := openAt(t, func() time.Time { return time.Now().Add(-time.Minute) }) // on a machine whose clock is behind
		w := watchFrom(t, s, known)
		mustCreate(t, s, "last")
		if events, err := told(t, w, "last"); !k8sstorage.IsTooLargeResourceVersion(err) {
			t.Errorf("%v, %q: the client keeps an object that is not there", err, events)
		}
	})
	t.Run("fail-over", func(t *testing.T) {
		master, replica := redistest.Start(t, "redis-server"), redistest.Start(t, "redis-server")
		redistest.Replicate(t, master, replica)
		openOn := func(addr string) *objects.Store {
			b, err := redis.Open(t.Context(), redis.Options{Client: goredis.UniversalOptions{Addrs: []string{addr}}})
			if err != nil {
				t.Fatal(err)
			}
			return newStore(t, b)
		}
		first := openOn(master.Addr)
		mustCreate(t, first, "kept")
		time.Sleep(300 * time.Millisecond)
		replica.Command(t, "REPLICAOF", "NO", "ONE") // later changes do not reach it
		known := mustCreate(t, first, "lost")        // a client of the first process lists now
		master.Kill()
		second := openOn(replica.Addr)
		mustCreate(t, second, "other")
		w := watchFrom(t, second, known)
		mustCreate(t, second, "last")
		if events, err := told(t, w, "last"); !apierrors.IsResourceExpired(err) {
			t.Errorf("%v, %q: the client keeps an object that is not there", err, events)
		}
	})
}

// signaled is closed when a watch has sent its initial state.
type signaled chan struct{}

// Signal implements utilflowcontrol.InitializationSignal.
func (s signaled) Signal() { close(s) }

// Wait implements utilflowcontrol.InitializationSignal.
func (s signaled) Wait() { <-s }

// TestWatchAfterAdvance: a watch from before a revision that no change made begins at once,
// and does not wait for the next change.
func TestWatchAfterAdvance(t *testing.T) {
	for name, start := range selected() {
		t.Run(name, func(t *testing.T) {
			b := start(t)(t, time.Now)
			s := newStore(t, b)
			version := mustCreate(t, s, "a")
			if err := b.Advance(t.Context(), time.Now().Add(time.Hour).UnixMicro()); err != nil {
				t.Fatal(err)
			}
			begun := make(signaled)
			ctx := utilflowcontrol.WithInitializationSignal(t.Context(), begun)
			w, err := s.Watch(ctx, "/pods/", k8sstorage.ListOptions{ResourceVersion: version, Predicate: k8sstorage.Everything, Recursive: true})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			select {
			case <-begun:
			case <-time.After(30 * time.Second):
				t.Error("the watch has not begun in 30 seconds")
			}
			mustCreate(t, s, "b")
			if events, err := told(t, w, "b"); err != nil || strings.Join(events, ", ") != "ADDED b" {
				t.Errorf("%q, %v", events, err)
			}
		})
	}
}

// TestWatchesShareWhatTheyResume: watches that resume from the same place read the log
// once.
func TestWatchesShareWhatTheyResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	b, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	writer := newStore(t, b)
	start := mustCreate(t, writer, "first")
	for i := range 100 {
		mustCreate(t, writer, fmt.Sprintf("p%03d", i))
	}
	counted := &countedLog{Backend: b}
	s, err := objects.New(objects.Options{Backend: counted, Codec: suiteCodec, ResourcePrefix: "/pods/", NewFunc: newPod})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 50 {
		if events, err := told(t, watchFrom(t, s, start), "p099"); err != nil || len(events) != 100 {
			t.Fatalf("%v, %q", err, events)
		}
	}
	if n := counted.changes.Load(); n != 100 {
		t.Errorf("50 watches over 100 changes read %d", n)
	}
}
