package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tallyman/storage"
)

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

// testScanIntoMemory: values in a Memory are those of all pages that were read since its Reset. Reads without
// one, and reads for others, are not concerned.
func testScanIntoMemory(t *testing.T, b storage.Backend) {
	value := func(page, n int) string { return strings.Repeat(fmt.Sprintf("%d/%d ", page, n), 100+400*n) }
	for page := range 3 {
		for n := range 5 {
			put(t, b, fmt.Sprintf("/%d/%d", page, n), value(page, n), 0)
		}
	}
	memory := &storage.Memory{}
	kept := scan(t, b, storage.ScanRequest{From: "/", To: "0"}).Entries
	for range 2 {
		memory.Reset()
		var pages [][]storage.Entry
		for page := range 3 {
			r, err := b.Scan(storage.WithMemory(t.Context(), memory), storage.ScanRequest{From: fmt.Sprintf("/%d/", page), To: fmt.Sprintf("/%d0", page)})
			if err != nil {
				t.Fatal(err)
			}
			pages = append(pages, r.Entries)
		}
		for i, e := range append(slices.Concat(pages...), kept...) {
			if page, n := i/5%3, i%5; string(e.Value.Body()) != value(page, n) {
				t.Fatalf("entry %d, %s, is %.20q", i, e.Key, e.Value.Body())
			}
		}
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
