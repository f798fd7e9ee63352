// Package storagetest states the contract of storage.Backend as tests, which
// every implementation runs.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage"
)

// Open returns a new, empty Backend whose revisions come from now. The test
// closes it.
type Open func(t *testing.T, now func() time.Time) storage.Backend

// Run runs all tests of the contract.
func Run(t *testing.T, open Open) {
	tests := map[string]func(*testing.T, storage.Backend){
		"Empty":                 testEmpty,
		"CommitAndGet":          testCommitAndGet,
		"CommitIsConditional":   testCommitIsConditional,
		"ScanRange":             testScanRange,
		"ScanPages":             testScanPages,
		"Pages":                 testPages,
		"ScanAtRevision":        testScanAtRevision,
		"ScanAgainstModel":      testScanAgainstModel,
		"Log":                   testLog,
		"LogBlocks":             testLogBlocks,
		"LogOfAnotherHistory":   testAnotherHistory,
		"LogAfterManyChanges":   testManyChanges,
		"Compact":               testCompact,
		"Advance":               testAdvance,
		"UnknownRevision":       testUnknownRevision,
		"Stats":                 testStats,
		"Close":                 testClose,
		"ConcurrentCommits":     testConcurrentCommits,
		"ValuesAreCopies":       testValuesAreCopies,
		"EmptyAndBinaryContent": testBinary,
		"GetSeveral":            testGetSeveral,
		"Sections":              testSections,
		"Mutations":             testMutations,
		"CommitIsAtomic":        testCommitIsAtomic,
		"InsideACommit":         testInsideACommit,
		"Terms":                 testTerms,
		"TermsOfThePast":        testTermsOfThePast,
		"FillIndex":             testFillIndex,
		"Model":                 testModel,
		"ConcurrentModel":       testConcurrentModel,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := open(t, time.Now)
			t.Cleanup(func() {
				if err := b.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
					t.Errorf("close: %v", err)
				}
			})
			test(t, b)
		})
	}
	t.Run("RevisionsFollowTheClock", func(t *testing.T) { testClock(t, open) })
}

func put(t *testing.T, b storage.Backend, key, value string, expect int64) int64 {
	t.Helper()
	r, err := b.Commit(t.Context(), storage.Mutation{Key: key, Value: storage.Body([]byte(value)), Expect: expect})
	if err != nil || !r.Succeeded {
		t.Fatalf("put %s: %+v, %v", key, r, err)
	}
	return r.Revision
}

func remove(t *testing.T, b storage.Backend, key string, expect int64) int64 {
	t.Helper()
	r, err := b.Commit(t.Context(), storage.Mutation{Key: key, Operation: storage.Delete, Expect: expect})
	if err != nil || !r.Succeeded {
		t.Fatalf("delete %s: %+v, %v", key, r, err)
	}
	return r.Revision
}

func scan(t *testing.T, b storage.Backend, req storage.ScanRequest) *storage.ScanResult {
	t.Helper()
	r, err := b.Scan(t.Context(), req)
	if err != nil {
		t.Fatalf("scan %+v: %v", req, err)
	}
	return r
}

// body returns the body of an entry, "" for nil.
func body(e *storage.Entry) string {
	if e == nil {
		return ""
	}
	return string(e.Value.Body())
}

// revisionOf returns the revision of an entry, 0 for nil.
func revisionOf(e *storage.Entry) int64 {
	if e == nil {
		return 0
	}
	return e.Revision
}

// keys prints entries as "key=value", which most checks compare.
func keys(entries []storage.Entry) string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Key+"="+string(e.Value.Body()))
	}
	return strings.Join(all, " ")
}

func testEmpty(t *testing.T, b storage.Backend) {
	entry, revision, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{})
	if entry != nil || err != nil || revision <= 0 {
		t.Errorf("Get on an empty store: %v, revision %d, %v", entry, revision, err)
	}
	r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Count: true})
	if len(r.Entries) != 0 || r.Count != 0 || r.More || r.Revision != revision {
		t.Errorf("Scan on an empty store: %+v", r)
	}
	w, err := b.Window(t.Context())
	if err != nil || w.Current != revision || w.Compacted > w.Current {
		t.Errorf("Window %+v, %v", w, err)
	}
}

func testCommitAndGet(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "1", 0)
	second := put(t, b, "/a", "2", first)
	if second <= first {
		t.Errorf("revision %d follows %d", second, first)
	}
	entry, revision, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{})
	if err != nil || entry == nil || string(entry.Value.Body()) != "2" || entry.Revision != second || revision != second {
		t.Fatalf("Get: %+v at %d, %v", entry, revision, err)
	}
	third := remove(t, b, "/a", second)
	entry, revision, err = storage.GetEntry(t.Context(), b, "/a", storage.Read{})
	if err != nil || entry != nil || revision != third {
		t.Errorf("Get after delete: %+v at %d, want nothing at %d, %v", entry, revision, third, err)
	}
}

func testCommitIsConditional(t *testing.T, b storage.Backend) {
	revision := put(t, b, "/a", "1", 0)
	for name, m := range map[string]storage.Mutation{
		"create what exists":     {Key: "/a", Value: storage.Body([]byte("x"))},
		"update a stale one":     {Key: "/a", Value: storage.Body([]byte("x")), Expect: revision - 1},
		"delete a stale one":     {Key: "/a", Operation: storage.Delete, Expect: revision - 1},
		"delete as if absent":    {Key: "/a", Operation: storage.Delete},
		"update what is absent":  {Key: "/b", Value: storage.Body([]byte("x")), Expect: revision},
		"delete what is absent":  {Key: "/b", Operation: storage.Delete, Expect: revision},
		"delete absent, unknown": {Key: "/b", Operation: storage.Delete},
	} {
		r, err := b.Commit(t.Context(), m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.Succeeded || r.Revision != revision {
			t.Errorf("%s: %+v", name, r)
		}
		if exists := m.Key == "/a"; exists != (r.Current != nil) || exists && (string(r.Current.Value.Body()) != "1" || r.Current.Revision != revision) {
			t.Errorf("%s: the current entry is %+v", name, r.Current)
		}
	}
	if w, err := b.Window(t.Context()); err != nil || w.Current != revision {
		t.Errorf("commits that failed moved the revision from %d to %d, %v", revision, w.Current, err)
	}
	if _, err := b.Commit(t.Context(), storage.Mutation{Key: "/c"}); err == nil {
		t.Error("a commit without a value was taken")
	}
}

func testScanRange(t *testing.T, b storage.Backend) {
	for _, key := range []string{"/b", "/a/2", "/a", "/a/1", "/a0", "/c"} {
		put(t, b, key, "v", 0)
	}
	for _, test := range []struct{ from, to, want string }{
		{"/a/", "/a0", "/a/1=v /a/2=v"},
		{"/a", "/a\x00", "/a=v"},
		{"/", "0", "/a=v /a/1=v /a/2=v /a0=v /b=v /c=v"},
		{"/d", "0", ""},
		{"/c", "/a", ""},
	} {
		if got := keys(scan(t, b, storage.ScanRequest{From: test.from, To: test.to}).Entries); got != test.want {
			t.Errorf("[%q, %q): %s, want %s", test.from, test.to, got, test.want)
		}
	}
	r := scan(t, b, storage.ScanRequest{From: "/a", To: "/b", KeysOnly: true})
	for _, e := range r.Entries {
		if e.Value != nil || e.Revision == 0 {
			t.Errorf("a scan of keys returned %+v", e)
		}
	}
}

func testScanPages(t *testing.T, b storage.Backend) {
	for i := range 10 {
		put(t, b, fmt.Sprintf("/k%d", i), "v", 0)
	}
	r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Limit: 4, Count: true})
	if len(r.Entries) != 4 || !r.More || r.Count != 10 {
		t.Errorf("first page: %d entries, more %v, count %d", len(r.Entries), r.More, r.Count)
	}
	r = scan(t, b, storage.ScanRequest{From: r.Entries[3].Key + "\x00", To: "0", Limit: 6, Count: true})
	if len(r.Entries) != 6 || r.More || r.Count != 6 {
		t.Errorf("last page: %d entries, more %v, count %d", len(r.Entries), r.More, r.Count)
	}
}

func testScanAtRevision(t *testing.T, b storage.Backend) {
	a := put(t, b, "/a", "1", 0)
	c := put(t, b, "/c", "1", 0)
	put(t, b, "/b", "1", 0)          // created since
	put(t, b, "/a", "2", a)          // changed since
	deleted := remove(t, b, "/c", c) // deleted since
	put(t, b, "/c", "3", 0)          // and created again
	past := scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: c, Count: true})
	if got := keys(past.Entries); got != "/a=1 /c=1" || past.Count != 2 || past.Revision != c {
		t.Errorf("at %d: %s, count %d, revision %d", c, got, past.Count, past.Revision)
	}
	if past.Entries[0].Revision != a {
		t.Errorf("/a has revision %d, want %d", past.Entries[0].Revision, a)
	}
	page := scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: c, Limit: 1, Count: true})
	if got := keys(page.Entries); got != "/a=1" || !page.More || page.Count != 2 {
		t.Errorf("first page at %d: %s, more %v, count %d", c, got, page.More, page.Count)
	}
	if got := keys(scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: deleted}).Entries); got != "/a=2 /b=1" {
		t.Errorf("at %d: %s", deleted, got)
	}
	if _, err := b.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: deleted + 1<<40}); !errors.Is(err, storage.ErrFuture) {
		t.Errorf("a scan in the future: %v", err)
	}
}

// testScanAgainstModel makes random changes, keeps a copy of every state, and
// compares random pages at random revisions.
func testScanAgainstModel(t *testing.T, b storage.Backend) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test wants the same numbers each time
	state := map[string]storage.Entry{}
	type snapshot struct {
		revision int64
		entries  []storage.Entry
	}
	var history []snapshot
	for range 400 {
		key := fmt.Sprintf("/k%02d", random.IntN(30))
		before := state[key]
		if before.Revision != 0 && random.IntN(3) == 0 {
			revision := remove(t, b, key, before.Revision)
			delete(state, key)
			history = append(history, snapshot{revision: revision})
		} else {
			value := fmt.Sprint(random.IntN(1000))
			revision := put(t, b, key, value, before.Revision)
			state[key] = storage.Entry{Key: key, Value: storage.Body([]byte(value)), Revision: revision}
			history = append(history, snapshot{revision: revision})
		}
		at := &history[len(history)-1]
		for _, e := range state {
			at.entries = append(at.entries, e)
		}
		slices.SortFunc(at.entries, func(x, y storage.Entry) int { return strings.Compare(x.Key, y.Key) })
	}
	for range 300 {
		want := history[random.IntN(len(history))]
		from, limit := fmt.Sprintf("/k%02d", random.IntN(30)), random.IntN(12)
		var expected []storage.Entry
		for _, e := range want.entries {
			if e.Key >= from {
				expected = append(expected, e)
			}
		}
		count := int64(len(expected))
		more := limit > 0 && len(expected) > limit
		if more {
			expected = expected[:limit]
		}
		got := scan(t, b, storage.ScanRequest{From: from, To: "0", Limit: limit, Revision: want.revision, Count: true})
		if keys(got.Entries) != keys(expected) || got.More != more || got.Count != count {
			t.Fatalf("from %s, limit %d, at %d:\n got %s, more %v, count %d\nwant %s, more %v, count %d", from, limit, want.revision,
				keys(got.Entries), got.More, got.Count, keys(expected), more, count)
		}
	}
}

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

func testStats(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "12345", 0)
	put(t, b, "/b", "123", 0)
	put(t, b, "/a", "1234", first)
	stats, err := b.Stats(t.Context())
	w, windowErr := b.Window(t.Context())
	if err != nil || windowErr != nil || stats.Window != w || stats.Objects != 2 || stats.Bytes != 7 || stats.LogEntries != 3 || stats.StoredBytes < stats.Bytes {
		t.Errorf("%+v, %v", stats, err)
	}
}

func testClose(t *testing.T, b storage.Backend) {
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := b.Log(t.Context(), storage.LogRequest{After: w.Current})
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond) // most of the time Log is waiting by then; the outcome is the same if not
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Log at Close: %v", err)
	}
	_, _, getErr := storage.GetEntry(t.Context(), b, "/a", storage.Read{})
	_, scanErr := b.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"})
	_, commitErr := b.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body([]byte("1"))})
	_, windowErr := b.Window(t.Context())
	for call, err := range map[string]error{"Get": getErr, "Scan": scanErr, "Commit": commitErr, "Window": windowErr} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s after Close: %v", call, err)
		}
	}
}

// testConcurrentCommits has many goroutines add one to one key: no increment is
// lost, and the log has every one, in order.
func testConcurrentCommits(t *testing.T, b storage.Backend) {
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "/n", "0", 0)
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if err := increment(t.Context(), b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	entry, _, err := storage.GetEntry(t.Context(), b, "/n", storage.Read{})
	if err != nil || string(entry.Value.Body()) != fmt.Sprint(workers*each) {
		t.Errorf("the sum is %s, want %d, %v", entry.Value.Body(), workers*each, err)
	}
	changes, err := b.Log(t.Context(), storage.LogRequest{After: w.Current})
	if err != nil || len(changes) != workers*each+1 {
		t.Fatalf("%d changes, want %d, %v", len(changes), workers*each+1, err)
	}
	for i := 1; i < len(changes); i++ {
		if changes[i].Revision <= changes[i-1].Revision || revisionOf(changes[i].Previous) != changes[i-1].Revision || body(changes[i].Current) != fmt.Sprint(i) {
			t.Fatalf("change %d is %+v after %+v", i, changes[i], changes[i-1])
		}
	}
}

func increment(ctx context.Context, b storage.Backend) error {
	for {
		entry, _, err := storage.GetEntry(ctx, b, "/n", storage.Read{})
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscan(string(entry.Value.Body()), &n); err != nil {
			return err
		}
		r, err := b.Commit(ctx, storage.Mutation{Key: "/n", Value: storage.Body([]byte(fmt.Sprint(n + 1))), Expect: entry.Revision})
		if err != nil || r.Succeeded {
			return err
		}
	}
}

// testValuesAreCopies: a caller that changes a slice it gave changes nothing in the store.
func testValuesAreCopies(t *testing.T, b storage.Backend) {
	value := []byte("good")
	if _, err := b.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body(value)}); err != nil {
		t.Fatal(err)
	}
	copy(value, "evil")
	entry, _, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{})
	if got := keys(scan(t, b, storage.ScanRequest{From: "/", To: "0"}).Entries); err != nil || string(entry.Value.Body()) != "good" || got != "/a=good" {
		t.Errorf("the store holds %s and %s, %v", entry.Value.Body(), got, err)
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

func testBinary(t *testing.T, b storage.Backend) {
	empty := put(t, b, "/empty", "", 0)
	put(t, b, "/bin", "\x00\xff\n", 0)
	if got := scan(t, b, storage.ScanRequest{From: "/", To: "0"}); keys(got.Entries) != "/bin=\x00\xff\n /empty=" {
		t.Errorf("%q", keys(got.Entries))
	}
	put(t, b, "/empty", "1", empty)
	changes, err := b.Log(t.Context(), storage.LogRequest{After: empty})
	if err != nil || revisionOf(changes[1].Previous) != empty || body(changes[1].Previous) != "" {
		t.Errorf("%+v, %v", changes, err)
	}
}

// testClock: revisions are microseconds while the clock runs ahead of them, and
// go on by one when it does not.
func testClock(t *testing.T, open Open) {
	var now atomic.Int64
	now.Store(5_000_000)
	b := open(t, func() time.Time { return time.UnixMicro(now.Load()) })
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	now.Store(7_000_000)
	if got := put(t, b, "/a", "1", 0); got != 7_000_000 {
		t.Errorf("revision %d, want the clock's 7000000", got)
	}
	now.Store(6_000_000)
	if got := put(t, b, "/b", "1", 0); got != 7_000_001 {
		t.Errorf("revision %d after the clock went back, want 7000001", got)
	}
}
