// Package storagetest states the contract of storage.Backend as tests, which
// every implementation runs.
package storagetest

import (
	"context"
	"errors"
	"strings"
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
		"ScanIntoMemory":        testScanIntoMemory,
		"Pages":                 testPages,
		"ScanAtRevision":        testScanAtRevision,
		"ScanAgainstModel":      testScanAgainstModel,
		"Log":                   testLog,
		"LogIncluding":          testLogIncluding,
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
		"LongValues":            testLongValues,
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

func testStats(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "12345", 0)
	put(t, b, "/b", "123", 0)
	put(t, b, "/a", "1234", first)
	stats, err := b.Stats(t.Context())
	if h, ok := b.(interface {
		HistoryBytes(ctx context.Context) (int64, error)
	}); ok && err == nil {
		var size int64
		if size, err = h.HistoryBytes(t.Context()); size != stats.LogBytes || size == 0 {
			t.Errorf("the history has %d bytes alone, and %d in the statistics", size, stats.LogBytes)
		}
	}
	w, windowErr := b.Window(t.Context())
	if err != nil || windowErr != nil || stats.Window != w || stats.Objects != 2 || stats.Bytes != 7 || stats.LogEntries != 3 || stats.StoredBytes < stats.Bytes {
		t.Errorf("%+v, %v", stats, err)
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
