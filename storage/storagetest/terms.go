package storagetest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"tallyman/storage"
)

// completeIndex tells the backend that all entries have their terms.
func completeIndex(t *testing.T, b storage.Backend) {
	t.Helper()
	ok, err := b.FillIndex(t.Context(), storage.FillRequest{Name: "/test/", Next: storage.IndexState{Version: "1", Complete: true}})
	if err != nil || !ok {
		t.Fatalf("FillIndex: %v, %v", ok, err)
	}
}

func change(group string, operation storage.TermOperation, terms ...string) storage.TermChange {
	return storage.TermChange{Group: group, Operation: operation, Terms: terms}
}

// names prints the keys of a scan by term.
func names(t *testing.T, b storage.Backend, term string, revision int64) string {
	t.Helper()
	r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Term: term, Revision: revision})
	var all []string
	for _, e := range r.Entries {
		all = append(all, e.Key)
	}
	return strings.Join(all, " ")
}

func testTerms(t *testing.T, b storage.Backend) {
	completeIndex(t, b)
	write := func(key string, terms ...storage.TermChange) {
		t.Helper()
		commit(t, b, storage.Mutation{Key: key, Value: storage.Body([]byte("x")), Expect: storage.AnyRevision, Terms: terms})
	}
	want := func(step string, wanted map[string]string) {
		t.Helper()
		for term, keys := range wanted {
			if got := names(t, b, term, 0); got != keys {
				t.Errorf("%s: %s is carried by %q, want %q", step, term, got, keys)
			}
			n := int64(len(strings.Fields(keys)))
			if counts, err := b.CountTerms(t.Context(), []string{"none", term}); err != nil || counts[0] != 0 || counts[1] != n {
				t.Errorf("%s: %s is counted %v, %v, want %d", step, term, counts, err, n)
			}
		}
	}
	write("/b", change("one", storage.ReplaceTerms, "red", "blue"))
	write("/a", change("one", storage.ReplaceTerms, "red"), change("two", storage.ReplaceTerms, "red", "green"))
	want("written", map[string]string{"red": "/a /b", "blue": "/b", "green": "/a"})
	write("/a")
	want("groups that are not named stay", map[string]string{"red": "/a /b", "green": "/a"})
	write("/a", change("one", storage.ReplaceTerms, "blue"))
	want("another group has it still", map[string]string{"red": "/a /b", "blue": "/a /b", "green": "/a"})
	write("/a", change("two", storage.RemoveTerms, "red", "unknown"))
	want("removed", map[string]string{"red": "/b", "green": "/a"})
	write("/a", change("two", storage.AddTerms, "red", "green"))
	want("added", map[string]string{"red": "/a /b", "green": "/a"})
	e, _, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{Terms: true})
	if err != nil || len(e.Terms) != 3 || !storage.HasTerm(e.Terms, storage.HashTerm("blue")) {
		t.Errorf("the entry is %+v, %v", e, err)
	}
	page := scan(t, b, storage.ScanRequest{From: "/", To: "0", Term: "red", Limit: 1})
	if len(page.Entries) != 1 || page.Entries[0].Key != "/a" || !page.More || body(&page.Entries[0]) != "x" {
		t.Errorf("the first page is %+v", page)
	}
	page = scan(t, b, storage.ScanRequest{From: "/a\x00", To: "0", Term: "red", Limit: 1})
	if len(page.Entries) != 1 || page.Entries[0].Key != "/b" || page.More {
		t.Errorf("the second page is %+v", page)
	}
	if page = scan(t, b, storage.ScanRequest{From: "/", To: "/b", Term: "red"}); len(page.Entries) != 1 {
		t.Errorf("a range has %+v", page.Entries)
	}
	commit(t, b, storage.Mutation{Operation: storage.Delete, Key: "/a", Expect: storage.AnyRevision})
	want("deleted", map[string]string{"red": "/b", "blue": "/b", "green": ""})
	write("/a", change("one", storage.AddTerms, "green"))
	want("created again", map[string]string{"red": "/b", "green": "/a"})
}

// testTermsOfThePast: a scan by term at a past revision, and the terms of changes.
func testTermsOfThePast(t *testing.T, b storage.Backend) {
	completeIndex(t, b)
	terms := func(all ...string) []storage.TermChange {
		return []storage.TermChange{change("g", storage.ReplaceTerms, all...)}
	}
	put := func(key string, all ...string) storage.Mutation {
		return storage.Mutation{Key: key, Value: storage.Body([]byte(key)), Expect: storage.AnyRevision, Terms: terms(all...)}
	}
	first := commit(t, b, put("/a", "red"), put("/b", "blue"), put("/c", "red")).Revision
	second := commit(t, b, put("/a", "blue")).Revision
	third := commit(t, b, put("/b", "red"), storage.Mutation{Operation: storage.Delete, Key: "/c", Expect: storage.AnyRevision}).Revision
	fourth := commit(t, b, storage.Mutation{Key: "/a", Value: storage.Body([]byte("x")), Expect: storage.AnyRevision}).Revision
	commit(t, b, put("/c", "red"), put("/a", "green"))
	for revision, want := range map[int64][2]string{first: {"/a /c", "/b"}, second: {"/c", "/a /b"}, third: {"/b", "/a"}, fourth: {"/b", "/a"}, 0: {"/b /c", ""}} {
		if red, blue := names(t, b, "red", revision), names(t, b, "blue", revision); red != want[0] || blue != want[1] {
			t.Errorf("at %d: red %q, blue %q, want %q", revision, red, blue, want)
		}
	}
	changes, err := b.Log(t.Context(), storage.LogRequest{After: first, Read: storage.Read{Terms: true, Sections: []string{}}})
	if err != nil || len(changes) != 6 {
		t.Fatalf("%d changes, %v", len(changes), err)
	}
	has := func(e *storage.Entry, term string) bool {
		return e != nil && storage.HasTerm(e.Terms, storage.HashTerm(term))
	}
	if c := changes[0]; !has(c.Previous, "red") || has(c.Previous, "blue") || has(c.Current, "red") || !has(c.Current, "blue") {
		t.Errorf("the change of terms is %+v, %+v", c.Previous, c.Current)
	}
	if c := changes[3]; !has(c.Previous, "blue") || !has(c.Current, "blue") {
		t.Errorf("the change of the body alone is %+v, %+v", c.Previous, c.Current)
	}
	if c := changes[2]; !has(c.Previous, "red") || c.Current != nil {
		t.Errorf("the deletion is %+v, %+v", c.Previous, c.Current)
	}
}

// testFillIndex: terms of entries that were written without them make no revision and
// no change.
func testFillIndex(t *testing.T, b storage.Backend) {
	scanRed := storage.ScanRequest{From: "/", To: "0", Term: "red"}
	if _, err := b.Scan(t.Context(), scanRed); !errors.Is(err, storage.ErrNoIndex) {
		t.Errorf("a scan without an index: %v", err)
	}
	a := put(t, b, "/a", "1", 0)
	stale := put(t, b, "/b", "1", 0)
	current := put(t, b, "/b", "2", stale)
	fill := func(from, to storage.IndexState, entries ...storage.IndexedEntry) bool {
		t.Helper()
		ok, err := b.FillIndex(t.Context(), storage.FillRequest{Name: "/test/", State: from, Next: to, Entries: entries})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	begun := storage.IndexState{Version: "1", Position: "/a", Filled: 1}
	if !fill(storage.IndexState{}, begun, storage.IndexedEntry{Key: "/a", Revision: a, Group: "g", Terms: []string{"red"}},
		storage.IndexedEntry{Key: "/b", Revision: stale, Group: "g", Terms: []string{"red"}},
		storage.IndexedEntry{Key: "/none", Revision: a, Group: "g", Terms: []string{"red"}}) {
		t.Error("the first step did nothing")
	}
	if fill(storage.IndexState{}, storage.IndexState{Version: "2"}) {
		t.Error("a step from another state was made")
	}
	if state, err := b.IndexState(t.Context(), "/test/"); err != nil || state != begun {
		t.Errorf("the state is %+v, %v", state, err)
	}
	if _, err := b.Scan(t.Context(), scanRed); !errors.Is(err, storage.ErrNoIndex) {
		t.Errorf("a scan with half an index: %v", err)
	}
	fill(begun, storage.IndexState{Version: "1", Complete: true, Filled: 2})
	state, err := b.IndexState(t.Context(), "/test/")
	if err != nil || !state.Complete || state.Since != current {
		t.Errorf("the state is %+v, %v, want it complete since %d", state, err, current)
	}
	if got := names(t, b, "red", 0); got != "/a" {
		t.Errorf("red is carried by %q", got)
	}
	if w, err := b.Window(t.Context()); err != nil || w.Current != current {
		t.Errorf("filling the index moved the revision from %d to %d, %v", current, w.Current, err)
	}
	testFilledSection(t, b, state)
	scanRed.Revision = a
	if _, err := b.Scan(t.Context(), scanRed); !errors.Is(err, storage.ErrNoIndex) {
		t.Errorf("a scan from before the index was complete: %v", err)
	}
	put(t, b, "/a", "2", a)
	if got := names(t, b, "red", current); got != "/a" {
		t.Errorf("at %d, red was carried by %q", current, got)
	}
}

// testFilledSection: a section that is added is of the body, and takes the place of one that is, too.
func testFilledSection(t *testing.T, b storage.Backend, state storage.IndexState) {
	long := strings.Repeat("a long brief, ", 4000)
	has := commit(t, b, storage.Mutation{Key: "/has", Value: storage.Value{{Name: "body", Data: []byte("1")}, {Name: "brief", Data: []byte("own")}}}).Revision
	stale := commit(t, b, storage.Mutation{Key: "/stale", Value: storage.Value{{Name: "body", Data: []byte("1")}, {Name: "brief", Data: []byte("old")}}}).Revision
	stale = put(t, b, "/stale", "2", stale)
	aside := commit(t, b, storage.Mutation{Key: "/has", Expect: has, Value: storage.Value{{Name: "other", Data: []byte("3")}}}).Revision
	lacks, large := put(t, b, "/lacks", "1", 0), put(t, b, "/large", "1", 0)
	entry := func(key string, revision int64, data string) storage.IndexedEntry {
		return storage.IndexedEntry{Key: key, Revision: revision, Group: "g", Section: storage.Section{Name: "brief", Data: []byte(data)}}
	}
	next := state
	next.Filled++
	ok, err := b.FillIndex(t.Context(), storage.FillRequest{Name: "/test/", State: state, Next: next, Entries: []storage.IndexedEntry{
		entry("/has", aside, "added"), entry("/stale", stale, "added"), entry("/lacks", lacks, "added"), entry("/large", large, long),
	}})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	for key, want := range map[string]string{"/has": "added", "/stale": "", "/lacks": "added", "/large": long} {
		e, _, err := storage.GetEntry(t.Context(), b, key, storage.Read{Sections: []string{"brief"}, Fresh: true})
		if err != nil || string(e.Value.Section("brief")) != want {
			t.Errorf("%s has the section %.20q, %v", key, e.Value.Section("brief"), err)
		}
	}
	after := put(t, b, "/large", "2", large)
	for revision, want := range map[int64]string{large: long, after: ""} {
		page := scan(t, b, storage.ScanRequest{From: "/large", To: "/large0", Revision: revision, Read: storage.Read{Sections: []string{"brief"}, Fresh: true}})
		if len(page.Entries) != 1 || string(page.Entries[0].Value.Section("brief")) != want {
			t.Errorf("at %d /large has %.60v", revision, page.Entries)
		}
	}
	past := scan(t, b, storage.ScanRequest{From: "/has", To: "/has0", Revision: has, Read: storage.Read{Sections: []string{"brief"}}})
	if len(past.Entries) != 1 || !slices.Contains([]string{"own", "added"}, string(past.Entries[0].Value.Section("brief"))) {
		t.Errorf("before a change of another section, /has has %.60v", past.Entries)
	}
	past = scan(t, b, storage.ScanRequest{From: "/stale", To: "/stale0", Read: storage.Read{Sections: []string{"brief"}}})
	if len(past.Entries) != 1 || string(past.Entries[0].Value.Section("brief")) != "old" {
		t.Errorf("/stale has %.60v", past.Entries)
	}
	for key, revision := range map[string]int64{"/has": aside, "/stale": stale, "/lacks": lacks, "/large": after} {
		remove(t, b, key, revision)
	}
}
