package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage"
)

// OpenBounded returns a new, empty Backend with a bounded history. The test closes it.
type OpenBounded func(t *testing.T, now func() time.Time, bounds storage.HistoryBounds) storage.Backend

// patience bounds the wait for background work.
const patience = time.Minute

// RunHistory runs the tests of a Backend's history.
func RunHistory(t *testing.T, open OpenBounded) {
	for name, test := range map[string]func(*testing.T, *bounded){
		"Bytes":   testHistoryBytes,
		"MinAge":  testHistoryMinAge,
		"Quiet":   testHistoryQuiet,
		"Hold":    testHistoryHold,
		"Writers": testHistoryWriters,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newBounded(open))
		})
	}
}

// bounded opens stores whose clock the test sets.
type bounded struct {
	open OpenBounded
	now  atomic.Int64 // microseconds
}

func newBounded(open OpenBounded) *bounded {
	b := &bounded{open: open}
	b.now.Store(1e15)
	return b
}

func (b *bounded) start(t *testing.T, bounds storage.HistoryBounds) storage.Backend {
	t.Helper()
	s := b.open(t, func() time.Time { return time.UnixMicro(b.now.Load()) }, bounds)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (b *bounded) pass(d time.Duration) { b.now.Add(d.Microseconds()) }

func historyOf(t *testing.T, s storage.Backend) storage.BackendStats {
	t.Helper()
	stats, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// eventually waits until the history is as wanted.
func eventually(t *testing.T, s storage.Backend, what string, ok func(storage.BackendStats) bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		stats := historyOf(t, s)
		if ok(stats) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: the history has %d changes and %d bytes", what, stats.LogEntries, stats.LogBytes)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// testHistoryBytes: MaxBytes is above all other bounds, except that the newest commit stays,
// and dropped changes are taken off the size.
func testHistoryBytes(t *testing.T, b *bounded) {
	const size, most = 10 << 10, 100 << 10
	s := b.start(t, storage.HistoryBounds{MaxBytes: most, MinAge: time.Hour, MaxEntries: 1 << 20, MaxAge: 24 * time.Hour})
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	value := func(n int) string {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		return string(data)
	}
	revision := put(t, s, "/a", value(size), 0)
	for range 40 {
		revision = put(t, s, "/a", value(size), revision)
	}
	eventually(t, s, "40 values of 10 KiB were replaced", func(stats storage.BackendStats) bool {
		return stats.LogBytes <= most && stats.LogEntries >= 5
	})
	revision = put(t, s, "/a", value(2*most), revision)
	held := s.Hold(revision - 1)
	defer held.Release()
	last := put(t, s, "/a", "small", revision)
	eventually(t, s, "one commit is larger than the bound", func(stats storage.BackendStats) bool { return stats.LogEntries == 1 })
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: revision}); err != nil || len(changes) != 1 || changes[0].Revision != last {
		t.Errorf("the newest commit: %+v, %v", changes, err)
	}
	put(t, s, "/b", "b", 0)
	eventually(t, s, "it is not the newest any more", func(stats storage.BackendStats) bool { return stats.LogBytes < 1000 })
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context(), w.Current); err != nil {
		t.Fatal(err)
	}
	if stats := historyOf(t, s); stats.LogBytes != 0 || stats.LogEntries != 0 {
		t.Errorf("an empty history has %d changes and %d bytes", stats.LogEntries, stats.LogBytes)
	}
}

// testHistoryMinAge: changes younger than MinAge stay however many there are.
func testHistoryMinAge(t *testing.T, b *bounded) {
	s := b.start(t, storage.HistoryBounds{MinAge: 10 * time.Minute, MaxEntries: 5, MaxAge: time.Hour})
	first := put(t, s, "/k", "v", 0)
	for i := range 30 {
		b.pass(time.Second)
		put(t, s, fmt.Sprintf("/k%02d", i), "v", 0)
	}
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: first}); err != nil || len(changes) != 30 {
		t.Errorf("30 changes in 30 seconds: %d, %v", len(changes), err)
	}
	b.pass(10*time.Minute - 10*time.Second)
	eventually(t, s, "20 changes are older than ten minutes", func(stats storage.BackendStats) bool { return stats.LogEntries <= 11 && stats.LogEntries >= 9 })
	b.pass(time.Minute)
	eventually(t, s, "all are", func(stats storage.BackendStats) bool { return stats.LogEntries == 5 })
}

// testHistoryQuiet: the history is trimmed while nothing is written, too.
func testHistoryQuiet(t *testing.T, b *bounded) {
	s := b.start(t, storage.HistoryBounds{})
	Fill(t, s, 20*storage.MaxMutations, func(i int) storage.Mutation {
		return storage.Mutation{Key: fmt.Sprintf("/%d", i), Value: storage.Body([]byte("v"))}
	})
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.pass(7 * 24 * time.Hour)
	eventually(t, s, "a week has gone by", func(stats storage.BackendStats) bool { return stats.LogEntries == storage.MaxMutations })
	if _, err := s.Log(t.Context(), storage.LogRequest{After: w.Compacted}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("a revision of a week ago: %v", err)
	}
	put(t, s, "/late", "v", 0)
	eventually(t, s, "a commit came", func(stats storage.BackendStats) bool { return stats.LogEntries == 1 })
}

// testHistoryHold: a hold keeps the changes after its revision, until it is released.
func testHistoryHold(t *testing.T, b *bounded) {
	s := b.start(t, storage.HistoryBounds{MinAge: time.Minute, MaxEntries: 5, MaxAge: time.Hour})
	put(t, s, "/a", "v", 0)
	start := put(t, s, "/b", "v", 0)
	held := s.Hold(start)
	time.Sleep(1500 * time.Millisecond) // a backend may learn of it within a second
	for i := range 30 {
		put(t, s, fmt.Sprintf("/k%02d", i), "v", 0)
	}
	b.pass(2 * time.Hour)
	eventually(t, s, "only what was before the hold is dropped", func(stats storage.BackendStats) bool { return stats.LogEntries == 30 })
	put(t, s, "/late", "v", 0)
	time.Sleep(1500 * time.Millisecond)
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: start}); err != nil || len(changes) != 31 {
		t.Errorf("%d changes after the revision that is held, %v", len(changes), err)
	}
	if r := scan(t, s, storage.ScanRequest{From: "/", To: "0", Revision: start}); len(r.Entries) != 2 {
		t.Errorf("the state that is held has %d entries", len(r.Entries))
	}
	held.Release()
	eventually(t, s, "it is released", func(stats storage.BackendStats) bool { return stats.LogEntries == 1 })
}

// testHistoryWriters: many writers at once do not keep the history from its bounds.
func testHistoryWriters(t *testing.T, b *bounded) {
	const most, writers, each = 100, 16, 200
	s := b.start(t, storage.HistoryBounds{MinAge: 1, MaxEntries: most})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := s.Commit(t.Context(), storage.Mutation{Key: fmt.Sprintf("/%d/%d", w, i), Value: storage.Body([]byte("v"))}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, s, "16 writers are done", func(stats storage.BackendStats) bool { return stats.LogEntries == most })
}
