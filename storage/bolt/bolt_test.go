package bolt_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tallyman/storage"
	"tallyman/storage/bolt"
)

func open(t *testing.T, o bolt.Options) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func commit(t *testing.T, s *bolt.Store, key string) int64 {
	t.Helper()
	r, err := s.Commit(t.Context(), storage.Mutation{Key: key, Value: storage.Body([]byte(key))})
	if err != nil || !r.Succeeded {
		t.Fatalf("commit %s: %+v, %v", key, r, err)
	}
	return r.Revision
}

func closeStore(t *testing.T, s *bolt.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReopen: entries, log and revisions outlive the process, and revisions go on.
func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "er", "images.db")
	s := open(t, bolt.Options{Path: path})
	first := commit(t, s, "/a")
	second := commit(t, s, "/b")
	closeStore(t, s)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, %v", info.Mode(), err)
	}
	s = open(t, bolt.Options{Path: path, Now: func() time.Time { return time.UnixMicro(1) }})
	defer closeStore(t, s)
	changes, err := s.Log(t.Context(), storage.LogRequest{After: first})
	if err != nil || len(changes) != 1 || changes[0].Revision != second {
		t.Errorf("the log after a restart: %+v, %v", changes, err)
	}
	if third := commit(t, s, "/c"); third != second+1 {
		t.Errorf("revision %d follows %d although the clock is behind", third, second)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	s := open(t, bolt.Options{Path: path})
	defer closeStore(t, s)
	if _, err := bolt.Open(bolt.Options{Path: path}); !errors.Is(err, bolt.ErrLocked) {
		t.Errorf("a second Open: %v", err)
	}
}

func TestUnknownFormatIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	closeStore(t, open(t, bolt.Options{Path: path}))
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte{0, 0, 0, 0, 0, 0, 0, 9})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err := bolt.Open(bolt.Options{Path: path}); err == nil {
		closeStore(t, s)
		t.Error("a file of format 9 was opened")
	}
}

func TestLogWindow(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixMicro())
	s := open(t, bolt.Options{
		Path: filepath.Join(t.TempDir(), "images.db"), History: storage.HistoryBounds{MinAge: 1, MaxEntries: 3}, Now: func() time.Time { return time.UnixMicro(now.Load()) },
	})
	defer closeStore(t, s)
	var revisions []int64
	for i := range 5 {
		revisions = append(revisions, commit(t, s, fmt.Sprintf("/%d", i)))
	}
	if _, err := s.Log(t.Context(), storage.LogRequest{After: revisions[0]}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log beyond the count: %v", err)
	}
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: revisions[1]}); err != nil || len(changes) != 3 {
		t.Errorf("Log at the start of the window: %+v, %v", changes, err)
	}
	now.Add((2 * time.Hour).Microseconds())
	last := commit(t, s, "/late")
	if _, err := s.Log(t.Context(), storage.LogRequest{After: revisions[3]}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log beyond the age: %v", err)
	}
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: revisions[4]}); err != nil || len(changes) != 1 || changes[0].Revision != last {
		t.Errorf("the newest change: %+v, %v", changes, err)
	}
}

func TestOptionsValidate(t *testing.T) {
	for _, o := range []bolt.Options{{}, {Path: "x", History: storage.HistoryBounds{MinAge: 1, MaxEntries: -1}}, {Path: "x", History: storage.HistoryBounds{MinAge: 1, MaxAge: -1}}} {
		if o.Validate() == nil {
			t.Errorf("%+v is taken for valid", o)
		}
	}
}

// TestFailedSync: a commit whose sync failed may be in the file all the same. The next one
// goes on from there, and gives no revision twice.
func TestFailedSync(t *testing.T) {
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	put := func(key string) int64 {
		t.Helper()
		r, err := s.Commit(t.Context(), storage.Mutation{Key: key, Value: storage.Body([]byte("x"))})
		if err != nil || !r.Succeeded {
			t.Fatalf("%+v, %v", r, err)
		}
		return r.Revision
	}
	put("/a")
	before, size := mustWindow(t, s), s.HistorySize()
	last := put("/b")
	s.Forget(before, size)
	if w := mustWindow(t, s); w.Current != last {
		t.Errorf("the window ends at %d, and reads see %d", w.Current, last)
	}
	if next := put("/c"); next <= last {
		t.Errorf("revision %d follows %d", next, last)
	}
	changes, err := s.Log(t.Context(), storage.LogRequest{After: before.Current, Limit: 10})
	if err != nil || len(changes) != 2 || changes[1].Before != changes[0].Revision {
		t.Errorf("%+v, %v", changes, err)
	}
	if size := s.HistorySize(); size.Entries != 3 {
		t.Errorf("the history has %d entries", size.Entries)
	}
}

func mustWindow(t *testing.T, s *bolt.Store) storage.Window {
	t.Helper()
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return w
}
