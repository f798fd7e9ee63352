package migrate_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/migrate"
)

// hesitating is a source whose log times out once.
type hesitating struct {
	storage.Backend
	slow bool
}

// Log implements storage.Backend.
func (h *hesitating) Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error) {
	if h.slow {
		h.slow = false
		return nil, context.DeadlineExceeded
	}
	return h.Backend.Log(ctx, req)
}

// targets is a Merge that keeps the target's value, as that of Images does for derived fields.
func targets(_ string, _, to []byte) ([]byte, error) { return to, nil }

// TestSlowLog: changes that take long to read are copied all the same, once and while
// following.
func TestSlowLog(t *testing.T) {
	for name, following := range map[string]bool{"once": false, "following": true} {
		t.Run(name, func(t *testing.T) {
			from, to := openBolt(t), openBolt(t)
			options := migrate.Options{From: from, To: to, Name: "test", Merge: targets}
			gone := put(t, from, "/images/gone", "1", 0)
			changed := put(t, from, "/images/changed", "old", 0)
			if _, err := migrate.Copy(t.Context(), options); err != nil {
				t.Fatal(err)
			}
			commit(t, from, storage.Mutation{Operation: storage.Delete, Key: "/images/gone", Expect: gone})
			put(t, from, "/images/changed", "new", changed)
			options.From = &hesitating{from, true}
			ended := make(chan error, 1)
			follow, stop := context.WithCancel(t.Context())
			defer stop()
			if following {
				options.Follow = follow
			}
			go func() {
				_, err := migrate.Copy(t.Context(), options)
				ended <- err
			}()
			put(t, from, "/images/later", "1", 0)
			if following {
				awaitValue(t, to, "/images/later", "1")
				stop()
			}
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			for key, want := range map[string]string{"/images/gone": "", "/images/changed": "new"} {
				if got := value(t, to, key); got != want {
					t.Errorf("%s is %q in the target, want %q", key, got, want)
				}
			}
		})
	}
}

// TestLargeChanges: changes of large values come through the socket of the process that
// has the file open.
func TestLargeChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "served.db")
	served, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, served)
	const n = 60
	large := strings.Repeat("x", 512<<10)
	revisions := map[string]int64{}
	for i := range n {
		key := fmt.Sprintf("/images/%04d", i)
		revisions[key] = put(t, served, key, "1", 0)
	}
	to := openBolt(t)
	attached, err := bolt.Attach(path)
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	options := migrate.Options{From: attached, To: to, Name: "test", Merge: merge}
	if _, err := migrate.Copy(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	for key, revision := range revisions {
		put(t, served, key, "1"+large, revision)
	}
	if _, err := migrate.Copy(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	for key := range revisions {
		if len(value(t, to, key)) < len(large) {
			t.Errorf("the change of %s is missing", key)
		}
	}
}

// TestCompareEnds: comparing ends where the revision was advanced without a change, and counts
// keys of the target alone.
func TestCompareEnds(t *testing.T) {
	from, to := openBolt(t), openBolt(t)
	put(t, from, "/images/a", "1", 0)
	put(t, from, "/images/c", "1", 0)
	copyAll(t, from, to)
	put(t, to, "/images/0", "own", 0)
	put(t, to, "/images/b", "own", 0)
	put(t, to, "/images/d", "own", 0)
	w, err := from.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Advance(t.Context(), w.Current+1e12); err != nil {
		t.Fatal(err)
	}
	before, err := to.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report, err := migrate.Copy(t.Context(), migrate.Options{From: from, To: to, Name: "test", Merge: merge})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := migrate.Compare(ctx, from, to, merge, before.Current, report); err != nil || report.Compared != 2 || report.Missing != 0 || report.Additional != 3 {
		t.Errorf("compared %d, missing %d, additional %d, %v", report.Compared, report.Missing, report.Additional, err)
	}
}
