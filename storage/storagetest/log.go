package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"tallyman/storage"
)

func testLog(t *testing.T, b storage.Backend) {
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	created := put(t, b, "/a", "1", 0)
	updated := put(t, b, "/a", "2", created)
	deleted := remove(t, b, "/a", updated)
	changes, err := b.Log(t.Context(), storage.LogRequest{After: start.Current})
	if err != nil || len(changes) != 3 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	for i, want := range []struct {
		revision, prevRevision int64
		value, prevValue       string
		deleted                bool
	}{
		{created, 0, "1", "", false},
		{updated, created, "2", "1", false},
		{deleted, updated, "", "2", true},
	} {
		c := changes[i]
		if c.Key != "/a" || c.Revision != want.revision || revisionOf(c.Previous) != want.prevRevision || body(c.Current) != want.value ||
			body(c.Previous) != want.prevValue || c.Delete != want.deleted {
			t.Errorf("change %d: %+v, want %+v", i, c, want)
		}
	}
	if changes, err = b.Log(t.Context(), storage.LogRequest{After: created, Limit: 1}); err != nil || len(changes) != 1 || changes[0].Revision != updated {
		t.Errorf("one change after %d: %+v, %v", created, changes, err)
	}
}

// testLogIncluding: the change of the revision itself comes, too, if the history has it, also from inside a
// commit.
func testLogIncluding(t *testing.T, b storage.Backend) {
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := put(t, b, "/a", "1", 0)
	result, err := b.Commit(t.Context(), storage.Mutation{Key: "/b", Value: storage.Body([]byte("1"))}, storage.Mutation{Key: "/c", Value: storage.Body([]byte("1"))})
	if err != nil {
		t.Fatal(err)
	}
	second, third := result.Revisions[0], result.Revisions[1]
	for after, want := range map[int64][]int64{start.Current: {first, second, third}, first: {first, second, third}, second: {second, third}, third: {third}} {
		changes, err := b.Log(t.Context(), storage.LogRequest{After: after, Including: true})
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for i := range changes {
			if got = append(got, changes[i].Revision); changes[i].Revision == second && changes[i].Before != first {
				t.Errorf("%d comes after %d, want %d", second, changes[i].Before, first)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("including %d: %v, want %v", after, got, want)
		}
	}
	if err := b.Compact(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if changes, err := b.Log(t.Context(), storage.LogRequest{After: first, Including: true}); err != nil || len(changes) != 2 || changes[0].Revision != second {
		t.Errorf("including one that the history has not: %+v, %v", changes, err)
	}
	if _, err := b.Log(t.Context(), storage.LogRequest{After: start.Current, Including: true}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("from before the window: %v", err)
	}
}

func testLogBlocks(t *testing.T, b storage.Backend) {
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if changes, err := b.Log(ctx, storage.LogRequest{After: w.Current}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Log with nothing to tell: %v, %v", changes, err)
	}
	got := make(chan []storage.Change, 1)
	go func() {
		changes, err := b.Log(t.Context(), storage.LogRequest{After: w.Current})
		if err != nil {
			t.Error(err)
		}
		got <- changes
	}()
	revision := put(t, b, "/a", "1", 0)
	if changes := <-got; len(changes) != 1 || changes[0].Revision != revision {
		t.Errorf("Log woke with %+v", changes)
	}
}

func testCompact(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "1", 0)
	second := put(t, b, "/a", "2", first)
	third := put(t, b, "/a", "3", second)
	if err := b.Compact(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Log(t.Context(), storage.LogRequest{After: first}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from before the window: %v", err)
	}
	if _, err := b.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: first}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Scan from before the window: %v", err)
	}
	if changes, err := b.Log(t.Context(), storage.LogRequest{After: second}); err != nil || len(changes) != 1 || changes[0].Revision != third {
		t.Errorf("Log from the start of the window: %+v, %v", changes, err)
	}
	if got := keys(scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: second}).Entries); got != "/a=2" {
		t.Errorf("at the start of the window: %s", got)
	}
	if w, err := b.Window(t.Context()); err != nil || w.Compacted != second || w.Current != third {
		t.Errorf("Window %+v, %v", w, err)
	}
	if err := b.Compact(t.Context(), third+1<<40); !errors.Is(err, storage.ErrFuture) {
		t.Errorf("Compact of the future: %v", err)
	}
}

func testAdvance(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "1", 0)
	ahead := first + 1<<40
	for _, revision := range []int64{ahead, first} { // never back
		if err := b.Advance(t.Context(), revision); err != nil {
			t.Fatal(err)
		}
	}
	if w, err := b.Window(t.Context()); err != nil || w.Current != ahead {
		t.Errorf("Window %+v, %v, want %d", w, err, ahead)
	}
	if r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: ahead}); keys(r.Entries) != "/a=1" || r.Entries[0].Revision != first {
		t.Errorf("at %d: %+v", ahead, r.Entries)
	}
	second := put(t, b, "/a", "2", first)
	for _, from := range []int64{first, ahead} {
		if changes, err := b.Log(t.Context(), storage.LogRequest{After: from}); err != nil || len(changes) != 1 || changes[0].Revision != second || second != ahead+1 {
			t.Errorf("the log goes on after %d with %+v, %v, want %d", from, changes, err, ahead+1)
		}
	}
	for i := range int64(3) { // again and again, with no change between
		if err := b.Advance(t.Context(), second+(i+1)<<30); err != nil {
			t.Fatal(err)
		}
	}
	third := put(t, b, "/a", "3", second)
	for i := range int64(3) {
		if changes, err := b.Log(t.Context(), storage.LogRequest{After: second + (i+1)<<30}); err != nil || len(changes) != 1 || changes[0].Revision != third {
			t.Errorf("the log goes on after advance %d with %+v, %v, want %d", i, changes, err, third)
		}
	}
	if changes, err := b.Log(t.Context(), storage.LogRequest{After: first}); err != nil || len(changes) != 2 {
		t.Errorf("the log across advances: %+v, %v", changes, err)
	}
	for _, revision := range []int64{-1, 1 << 53, math.MaxInt64} {
		if err := b.Advance(t.Context(), revision); err == nil {
			t.Errorf("advanced to %d", revision)
		}
	}
}

// testUnknownRevision: a revision that the store has never had is told from the others.
func testUnknownRevision(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "1", 0)
	time.Sleep(time.Millisecond)
	if second := put(t, b, "/a", "2", first); second == first+1 {
		t.Fatal("the clock stands still")
	}
	if _, err := b.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: first + 1}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("a scan at a revision between two commits: %v", err)
	}
	if _, err := b.Log(t.Context(), storage.LogRequest{After: first + 1, NoWait: true}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("the log after a revision between two commits: %v", err)
	}
}

// testAnotherHistory: a client whose history was lost brings a revision that the store never
// had, older than its newest one. It is not resumed.
func testAnotherHistory(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "1", 0)
	time.Sleep(5 * time.Millisecond) // revisions are microseconds: leaves room for one that is not used
	put(t, b, "/a", "2", first)
	if changes, err := b.Log(t.Context(), storage.LogRequest{After: first + 1}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from a revision that was never there: %+v, %v", changes, err)
	}
}

// testManyChanges: the log is read whole, in order, however long it is, and with
// the values of every change.
func testManyChanges(t *testing.T, b storage.Backend) {
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 1200
	revision := int64(0)
	for i := range n {
		if i%3 == 2 {
			remove(t, b, "/a", revision)
			revision = 0
		} else {
			revision = put(t, b, "/a", fmt.Sprint(i), revision)
		}
	}
	changes := AllChanges(t, b, storage.LogRequest{After: w.Current})
	if len(changes) != n {
		t.Fatalf("%d changes, want %d", len(changes), n)
	}
	for i, c := range changes {
		value, previous := fmt.Sprint(i), fmt.Sprint(i-1)
		if i%3 == 2 {
			value = ""
		}
		if i%3 == 0 {
			previous = ""
		}
		if body(c.Current) != value || body(c.Previous) != previous {
			t.Fatalf("change %d is %+v", i, c)
		}
	}
}
