package storagetest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"tallyman/storage"
)

// testPages: one read is bounded by storage.MaxPageEntries and storage.MaxPageBytes, for any
// limit, and continued reads see all entries. A short run leaves out the pages of many entries,
// whose commits take a double of Redis ten seconds.
func testPages(t *testing.T, b storage.Backend) {
	const large, small = 12, storage.MaxPageEntries + 100
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range large {
		value := make([]byte, 1<<20)
		for n := range value {
			value[n] = byte(random.Uint32()) // does not compress
		}
		put(t, b, fmt.Sprintf("/large/%02d", i), string(value), 0)
	}
	limits := []int{math.MinInt, -1, 0, math.MaxInt}
	for _, limit := range limits {
		eachLogPage(t, b, limit, start.Current, large)
	}
	contents := map[string]int{"/large/": large}
	if !testing.Short() {
		contents["/small/"] = small
		Fill(t, b, small, func(i int) storage.Mutation {
			return storage.Mutation{Key: fmt.Sprintf("/small/%06d", i), Value: storage.Body([]byte("v"))}
		})
	}
	for _, limit := range limits {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			for prefix, want := range contents {
				if pages := eachPage(t, b, storage.ScanRequest{From: prefix, To: prefix + "~", Limit: limit}, want); pages < 2 {
					t.Errorf("%s is one page", prefix)
				}
			}
			if want := contents["/small/"]; want > 0 {
				if pages := eachPage(t, b, storage.ScanRequest{From: "/small/", To: "/small/~", Limit: limit, KeysOnly: true}, want); pages < 2 {
					t.Error("all keys are one page")
				}
			}
		})
	}
}

// eachPage reads page after page, which have the number of entries together.
func eachPage(t *testing.T, b storage.Backend, req storage.ScanRequest, want int) (pages int) {
	t.Helper()
	found := 0
	for {
		r := scan(t, b, req)
		size := 0
		for i := range r.Entries {
			size += r.Entries[i].Value.Size()
		}
		if len(r.Entries) > storage.MaxPageEntries || size > storage.MaxPageBytes+1<<20 {
			t.Errorf("a page of %+v has %d entries and %d bytes", req, len(r.Entries), size)
		}
		found, pages = found+len(r.Entries), pages+1
		if !r.More {
			break
		}
		req.From, req.Revision = r.Entries[len(r.Entries)-1].Key+"\x00", r.Revision
	}
	if found != want {
		t.Errorf("%d pages have %d entries, want %d", pages, found, want)
	}
	return pages
}

func eachLogPage(t *testing.T, b storage.Backend, limit int, after int64, want int) {
	t.Helper()
	for found := 0; found < want; {
		changes, err := b.Log(t.Context(), storage.LogRequest{After: after, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for i := range changes {
			size += changes[i].Size()
		}
		if len(changes) > storage.MaxPageEntries+storage.MaxMutations || size > storage.MaxPageBytes+1<<20 {
			t.Errorf("a page of the log has %d changes and %d bytes", len(changes), size)
		}
		last := changes[len(changes)-1]
		if last.Commit != last.Revision {
			t.Error("a page of the log ends inside a commit")
		}
		found, after = found+len(changes), last.Revision
	}
}

// All returns the entries of a request, page by page.
func All(t *testing.T, b storage.Backend, req storage.ScanRequest) []storage.Entry {
	t.Helper()
	var all []storage.Entry
	for {
		r := scan(t, b, req)
		all = append(all, r.Entries...)
		if !r.More {
			return all
		}
		req.From, req.Revision = r.Entries[len(r.Entries)-1].Key+"\x00", r.Revision
	}
}

// AllChanges returns the changes after a revision up to the current one, page by page.
func AllChanges(t *testing.T, b storage.Backend, req storage.LogRequest) []storage.Change {
	t.Helper()
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var all []storage.Change
	for req.After < w.Current {
		changes, err := b.Log(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		all, req.After = append(all, changes...), changes[len(changes)-1].Revision
	}
	return all
}

// Fill makes n mutations, in as few commits as possible.
func Fill(t testing.TB, b storage.Backend, n int, mutation func(i int) storage.Mutation) {
	t.Helper()
	for from := 0; from < n; from += storage.MaxMutations {
		var mutations []storage.Mutation
		for i := from; i < min(n, from+storage.MaxMutations); i++ {
			mutations = append(mutations, mutation(i))
		}
		if r, err := b.Commit(t.Context(), mutations...); err != nil || !r.Succeeded {
			t.Fatalf("%+v, %v", r, err)
		}
	}
}
