package check_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/check"
)

// termsOf has each value carry itself.
func termsOf(_ string, value []byte) ([]storage.TermChange, error) {
	if string(value) == "undecodable" {
		return nil, errors.New("not an object")
	}
	return []storage.TermChange{{Group: "g", Terms: []string{string(value)}}}, nil
}

// TestCheck damages a file in several ways, each of which is found.
func TestCheck(t *testing.T) {
	tests := map[string]struct {
		damage func(tx *bbolt.Tx) error
		want   string // "" for no problem
	}{
		"nothing": {func(*bbolt.Tx) error { return nil }, ""},
		"a value": {func(tx *bbolt.Tx) error {
			data := tx.Bucket([]byte("data"))
			stored := slices.Clone(data.Get([]byte("/a")))
			at := strings.LastIndex(string(stored), "last")
			stored[at] ^= 1
			return data.Put([]byte("/a"), stored)
		}, "/a: the stored object is corrupt"},
		"a term that is missing": {func(tx *bbolt.Tx) error {
			terms := tx.Bucket([]byte("terms"))
			k, _ := terms.Cursor().First()
			return terms.Delete(slices.Clone(k))
		}, "index: it has 2 entries"},
		"a change": {func(tx *bbolt.Tx) error {
			log := tx.Bucket([]byte("log"))
			k, _ := log.Cursor().Last()
			return log.Delete(slices.Clone(k))
		}, "the history lacks the change"},
		"an old value": {func(tx *bbolt.Tx) error {
			history := tx.Bucket([]byte("history"))
			for k, _ := history.Cursor().First(); k != nil; k, _ = history.Cursor().First() {
				if err := history.Delete(slices.Clone(k)); err != nil {
					return err
				}
			}
			return nil
		}, "in the history: the stored object is corrupt"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "images.db")
			fill(t, path)
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(test.damage), db.Close()); err != nil {
				t.Fatal(err)
			}
			s, err := bolt.Open(bolt.Options{Path: path})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var problems []string
			report, err := check.Check(t.Context(), check.Options{
				Store: s, Index: "/", Terms: termsOf, Problem: func(where, what string) { problems = append(problems, where+": "+what) },
			})
			if err != nil || report.Entries != 3 || int(report.Problems) != len(problems) {
				t.Fatalf("%+v, %v", report, err)
			}
			if all := strings.Join(problems, "\n"); (test.want == "") != (all == "") || !strings.Contains(all, test.want) {
				t.Errorf("found %q, want %q", all, test.want)
			}
		})
	}
}

func fill(t *testing.T, path string) {
	t.Helper()
	s, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.FillIndex(t.Context(), storage.FillRequest{Name: "/", Next: storage.IndexState{Version: "1", Complete: true}}); err != nil {
		t.Fatal(err)
	}
	for _, put := range [][2]string{{"/a", "first"}, {"/b", "only"}, {"/a", "last"}, {"/c", "end"}} {
		changes, err := termsOf("", []byte(put[1]))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(t.Context(), storage.Mutation{Key: put[0], Expect: storage.AnyRevision, Value: storage.Body([]byte(put[1])), Terms: changes}); err != nil {
			t.Fatal(err)
		}
	}
}
