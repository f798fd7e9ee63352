package bolt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tallyman/storage"
	"tallyman/storage/bolt"
)

// TestAttach: another process reads through the one that has the store open, and
// tells its errors apart.
func TestAttach(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	if _, err := bolt.Attach(path); err == nil {
		t.Error("attached to a store that nobody has open")
	}
	s := open(t, bolt.Options{Path: path})
	first := commit(t, s, "/a")
	second := commit(t, s, "/b")
	if info, err := os.Stat(path + ".sock"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v, %v", info.Mode(), err)
	}
	a, err := bolt.Attach(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	scan, err := a.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: first, Count: true})
	if err != nil || len(scan.Entries) != 1 || string(scan.Entries[0].Value.Body()) != "/a" || scan.Count != 1 {
		t.Errorf("Scan: %+v, %v", scan, err)
	}
	if w, err := a.Window(t.Context()); err != nil || w.Current != second {
		t.Errorf("Window: %+v, %v", w, err)
	}
	if stats, err := a.Stats(t.Context()); err != nil || stats.Objects != 2 || stats.Current != second {
		t.Errorf("Stats: %+v, %v", stats, err)
	}
	if changes, err := a.Log(t.Context(), storage.LogRequest{After: first}); err != nil || len(changes) != 1 || changes[0].Revision != second || string(changes[0].Current.Value.Body()) != "/b" {
		t.Errorf("Log: %+v, %v", changes, err)
	}
	if _, err := a.Log(t.Context(), storage.LogRequest{After: second}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Log with nothing to tell: %v", err)
	}
	if _, err := a.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: second + 1<<40}); !errors.Is(err, storage.ErrFuture) {
		t.Errorf("a scan in the future: %v", err)
	}
	committed, err := a.Commit(t.Context(), storage.Mutation{Key: "/a", Expect: first, Value: storage.Body([]byte("changed"))})
	if err != nil || !committed.Succeeded || committed.Revision <= second {
		t.Errorf("Commit: %+v, %v", committed, err)
	}
	if refused, err := a.Commit(t.Context(), storage.Mutation{Key: "/a", Expect: first, Value: storage.Body([]byte("again"))}); err != nil || refused.Succeeded || refused.Current.Revision != committed.Revision {
		t.Errorf("a Commit that is in conflict: %+v, %v", refused, err)
	}
	if entry, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{}); err != nil || string(entry.Value.Body()) != "changed" {
		t.Errorf("after it: %+v, %v", entry, err)
	}
	if err := s.Compact(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Log(t.Context(), storage.LogRequest{After: first}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from before the window: %v", err)
	}
	closeStore(t, s)
	if _, err := a.Window(t.Context()); !errors.Is(err, storage.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(files) != 1 {
		t.Errorf("beside the store are left %v, %v", files, err)
	}
}
