package bolt_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"tallyman/storage"
	"tallyman/storage/bolt"
)

// change1 is a change as format 1 kept it.
type change1 struct {
	revision, previous int64
	key, value, old    string
	deleted            bool
}

// writeFormat1 makes a file of format 1 with this history, of which the entries are
// the result.
func writeFormat1(t *testing.T, path string, history []change1) {
	t.Helper()
	revision := func(r int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(r)) }
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		var failed error
		bucket := func(name string) *bbolt.Bucket {
			b, err := tx.CreateBucket([]byte(name))
			failed = errors.Join(failed, err)
			return b
		}
		meta, data, log := bucket("meta"), bucket("data"), bucket("log")
		last := history[len(history)-1].revision
		for name, value := range map[string]int64{"format": 1, "revision": last, "base": history[0].revision - 1, "compacted": history[0].revision - 1} {
			failed = errors.Join(failed, meta.Put([]byte(name), revision(value)))
		}
		for _, c := range history {
			b := binary.AppendUvarint(nil, uint64(c.previous))
			deleted := byte(0)
			if c.deleted {
				deleted = 1
				failed = errors.Join(failed, data.Delete([]byte(c.key)))
			} else {
				failed = errors.Join(failed, data.Put([]byte(c.key), append(revision(c.revision), c.value...)))
			}
			b = append(b, deleted)
			for _, field := range []string{c.key, c.value, c.old} {
				b = append(binary.AppendUvarint(b, uint64(len(field))), field...)
			}
			failed = errors.Join(failed, log.Put(revision(c.revision), b))
		}
		return failed
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestFormat1: a file of the format before opens, with its values and its history, and
// goes on.
func TestFormat1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	now := time.Now().UnixMicro()
	long := strings.Repeat("long ", 100)
	writeFormat1(t, path, []change1{
		{revision: now, key: "/a", value: "1"},
		{revision: now + 1, key: "/b", value: long},
		{revision: now + 2, previous: now, key: "/a", value: "2", old: "1"},
		{revision: now + 3, previous: now + 1, key: "/b", old: long, deleted: true},
		{revision: now + 4, key: "/b", value: long},
	})
	s := open(t, bolt.Options{Path: path})
	show := func(e *storage.Entry) string {
		if e == nil {
			return "none"
		}
		return strings.ReplaceAll(string(e.Value.Body()), long, "long")
	}
	all := func(revision int64) string {
		t.Helper()
		r, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: revision})
		if err != nil {
			t.Fatal(err)
		}
		var shown []string
		for i := range r.Entries {
			shown = append(shown, r.Entries[i].Key+"="+show(&r.Entries[i]))
		}
		return strings.Join(shown, " ")
	}
	if _, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Term: "red"}); !errors.Is(err, storage.ErrNoIndex) {
		t.Errorf("a scan by term: %v", err)
	}
	r, err := s.Commit(t.Context(),
		storage.Mutation{Key: "/a", Expect: now + 2, Value: storage.Body([]byte("3")), Terms: []storage.TermChange{{Group: "g", Terms: []string{"red"}}}},
		storage.Mutation{Key: "/c", Value: storage.Body([]byte("1"))})
	if err != nil || !r.Succeeded {
		t.Fatalf("%+v, %v", r, err)
	}
	filled, err := s.FillIndex(t.Context(), storage.FillRequest{
		Name: "/", Next: storage.IndexState{Version: "1", Complete: true},
		Entries: []storage.IndexedEntry{{Key: "/b", Revision: now + 4, Group: "g", Terms: []string{"red"}}},
	})
	if err != nil || !filled {
		t.Fatal(filled, err)
	}
	for range 2 { // and after a restart
		for revision, want := range map[int64]string{
			now: "/a=1", now + 1: "/a=1 /b=long", now + 2: "/a=2 /b=long", now + 3: "/a=2", now + 4: "/a=2 /b=long", 0: "/a=3 /b=long /c=1",
		} {
			if got := all(revision); got != want {
				t.Errorf("at %d: %s, want %s", revision, got, want)
			}
		}
		changes, err := s.Log(t.Context(), storage.LogRequest{After: now})
		if err != nil {
			t.Fatal(err)
		}
		var shown []string
		before := now
		for _, c := range changes {
			shown = append(shown, c.Key+":"+show(c.Previous)+">"+show(c.Current))
			if c.Before != before {
				t.Errorf("change %d is after %d, want %d", c.Revision, c.Before, before)
			}
			before = c.Revision
		}
		if want := []string{"/b:none>long", "/a:1>2", "/b:long>none", "/b:none>long", "/a:2>3", "/c:none>1"}; !slices.Equal(shown, want) {
			t.Errorf("the history is %v, want %v", shown, want)
		}
		red, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Term: "red"})
		if err != nil || len(red.Entries) != 2 {
			t.Errorf("by term: %+v, %v", red, err)
		}
		closeStore(t, s)
		s = open(t, bolt.Options{Path: path})
	}
	closeStore(t, s)
}

// TestCorruptSection: a value whose checksum does not match harms itself only.
func TestCorruptSection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	s := open(t, bolt.Options{Path: path})
	commit(t, s, "/a")
	bad := commit(t, s, "/bad")
	closeStore(t, s)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		data := tx.Bucket([]byte("data"))
		stored := slices.Clone(data.Get([]byte("/bad")))
		stored[len(stored)-1] ^= 1
		return data.Put([]byte("/bad"), stored)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	s = open(t, bolt.Options{Path: path})
	defer closeStore(t, s)
	r, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"})
	if err != nil || len(r.Entries) != 2 || r.Entries[0].Err != nil || !errors.Is(r.Entries[1].Err, storage.ErrCorrupt) {
		t.Errorf("%+v, %v", r, err)
	}
	a, err := bolt.Attach(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := a.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"}); err != nil || !errors.Is(r.Entries[1].Err, storage.ErrCorrupt) {
		t.Errorf("through the socket: %+v, %v", r, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Commit(t.Context(), storage.Mutation{Operation: storage.Delete, Key: "/bad", Expect: bad}); err != nil || !r.Succeeded {
		t.Errorf("the bad entry cannot be deleted: %+v, %v", r, err)
	}
}
