package storagetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tallyman/storage"
)

// commit wants mutations to succeed.
func commit(t *testing.T, b storage.Backend, mutations ...storage.Mutation) *storage.CommitResult {
	t.Helper()
	r, err := b.Commit(t.Context(), mutations...)
	if err != nil || !r.Succeeded {
		t.Fatalf("commit: %+v, %v", r, err)
	}
	return r
}

func putOf(key, value string, expect int64) storage.Mutation {
	return storage.Mutation{Key: key, Value: storage.Body([]byte(value)), Expect: expect}
}

func testGetSeveral(t *testing.T, b storage.Backend) {
	first := put(t, b, "/a", "1", 0)
	second := put(t, b, "/c", "3", 0)
	r, err := b.Get(t.Context(), storage.GetRequest{Keys: []string{"/c", "/b", "/a"}})
	if err != nil || len(r.Entries) != 3 || r.Revision != second {
		t.Fatalf("%+v, %v", r, err)
	}
	if body(r.Entries[0]) != "3" || r.Entries[1] != nil || body(r.Entries[2]) != "1" || r.Entries[2].Revision != first {
		t.Errorf("%+v", r.Entries)
	}
}

// testSections: a put replaces the sections that it names, keeps the others, and
// readers get those that they ask for, of the present and of the past.
func testSections(t *testing.T, b storage.Backend) {
	value := func(pairs ...string) (v storage.Value) {
		for pair := range slices.Chunk(pairs, 2) {
			v = append(v, storage.Section{Name: pair[0], Data: []byte(pair[1])})
		}
		return v
	}
	show := func(e *storage.Entry) string {
		if e == nil {
			return "none"
		}
		var all []string
		for _, s := range e.Value {
			all = append(all, s.Name+"="+string(s.Data))
		}
		return strings.Join(all, " ")
	}
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("long ", 100)
	first := commit(t, b, storage.Mutation{Key: "/a", Value: value("body", "1", "cells", long, "later", "kept")}).Revision
	second := commit(t, b, storage.Mutation{Key: "/a", Expect: first, Value: value("body", "2")}).Revision
	third := commit(t, b, storage.Mutation{Key: "/a", Expect: second, Value: storage.Value{{Name: "cells"}, {Name: "body", Data: []byte("3")}}}).Revision
	states := map[int64]string{first: "body=1 cells=" + long + " later=kept", second: "body=2 cells=" + long + " later=kept", third: "body=3 later=kept"}

	for revision, want := range states {
		r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: revision})
		if len(r.Entries) != 1 || show(&r.Entries[0]) != want {
			t.Errorf("at %d: %s, want %s", revision, show(&r.Entries[0]), want)
		}
		r = scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: revision, Read: storage.Read{Sections: []string{"later"}}})
		if len(r.Entries) != 1 || show(&r.Entries[0]) != "later=kept" {
			t.Errorf("at %d, the section later is %s", revision, show(&r.Entries[0]))
		}
	}
	e, _, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{Sections: []string{"body", "none"}})
	if err != nil || show(e) != "body=3" {
		t.Errorf("Get: %s, %v", show(e), err)
	}
	for _, read := range []storage.Read{{}, {Sections: []string{"cells"}}} {
		changes, err := b.Log(t.Context(), storage.LogRequest{After: start.Current, Read: read})
		if err != nil || len(changes) != 3 {
			t.Fatalf("%d changes, %v", len(changes), err)
		}
		wanted := []string{"none", states[first], states[second], states[third]}
		if read.Sections != nil {
			wanted = []string{"none", "cells=" + long, "cells=" + long, ""}
		}
		for i, c := range changes {
			if show(c.Previous) != wanted[i] || show(c.Current) != wanted[i+1] {
				t.Errorf("change %d, sections %v: %s, then %s; want %s, then %s", i, read.Sections, show(c.Previous), show(c.Current), wanted[i], wanted[i+1])
			}
		}
	}
	testFresh(t, b)
	remove(t, b, "/a", third)
	commit(t, b, storage.Mutation{Key: "/a", Value: value("cells", "new")})
	if e, _, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{}); err != nil || show(e) != "cells=new" {
		t.Errorf("a key that was deleted and created again holds %s, %v", show(e), err)
	}
}

// testMutations: conditions, operations, and mutations that are no commit.
func testMutations(t *testing.T, b storage.Backend) {
	completeIndex(t, b)
	a := put(t, b, "/a", "1", 0)
	commit(t, b, storage.Mutation{Key: "/t", Value: storage.Body([]byte("1")), Terms: []storage.TermChange{{Group: "g", Terms: []string{"red"}}}})
	other := put(t, b, "/other", "1", 0)
	unconditional := storage.Mutation{Key: "/a", Value: storage.Body([]byte("2")), Expect: storage.AnyRevision}
	tests := []struct {
		name      string
		mutations []storage.Mutation
		conflict  int    // -1: it succeeds
		current   string // key that is in the way
	}{
		{"check of what is there", []storage.Mutation{{Operation: storage.Check, Key: "/a", Expect: a}}, -1, ""},
		{"check of what is absent", []storage.Mutation{{Operation: storage.Check, Key: "/none"}}, -1, ""},
		{"check fails", []storage.Mutation{putOf("/new", "x", 0), {Operation: storage.Check, Key: "/a", Expect: a - 1}}, 1, "/a"},
		{"check of absence fails", []storage.Mutation{{Operation: storage.Check, Key: "/a"}, putOf("/new", "x", 0)}, 0, "/a"},
		{"the first conflict counts", []storage.Mutation{putOf("/new", "x", 0), putOf("/other", "x", a), putOf("/a", "x", 0)}, 1, "/other"},
		{"a range is empty", []storage.Mutation{{Operation: storage.CheckEmpty, From: "/b", To: "/c"}}, -1, ""},
		{"a range is not empty", []storage.Mutation{{Operation: storage.CheckEmpty, From: "/a", To: "/c"}}, 0, "/a"},
		{"the end of a range is outside", []storage.Mutation{{Operation: storage.CheckEmpty, From: "/b", To: "/other"}}, -1, ""},
		{"no entry has a term", []storage.Mutation{{Operation: storage.CheckEmpty, From: "/", To: "0", Term: "blue"}}, -1, ""},
		{"an entry has a term", []storage.Mutation{{Operation: storage.CheckEmpty, From: "/", To: "0", Term: "red"}}, 0, "/t"},
		{"the one with the term is outside", []storage.Mutation{{Operation: storage.CheckEmpty, From: "/", To: "/t", Term: "red"}}, -1, ""},
		{"conditions are about the state before", []storage.Mutation{putOf("/b", "x", 0), {Operation: storage.Check, Key: "/b"}, {Operation: storage.CheckEmpty, From: "/b", To: "/c"}}, -1, ""},
		{"delete whatever is there", []storage.Mutation{{Operation: storage.Delete, Key: "/b", Expect: storage.AnyRevision}}, -1, ""},
		{"delete what is absent", []storage.Mutation{{Operation: storage.Delete, Key: "/b", Expect: storage.AnyRevision}}, -1, ""},
		{"put whatever is there", []storage.Mutation{unconditional}, -1, ""},
		{"put again", []storage.Mutation{unconditional, putOf("/last", "x", 0)}, -1, ""},
	}
	for _, test := range tests {
		before, err := b.Window(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, err := b.Commit(t.Context(), test.mutations...)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		after, err := b.Window(t.Context())
		if err != nil || r.Revision != after.Current {
			t.Errorf("%s: the commit is at %d, the store at %d, %v", test.name, r.Revision, after.Current, err)
		}
		if test.conflict >= 0 {
			if r.Succeeded || r.Conflict != test.conflict || r.Current == nil || r.Current.Key != test.current || after.Current != before.Current {
				t.Errorf("%s: %+v (%+v), want a conflict of mutation %d with %s", test.name, r, r.Current, test.conflict, test.current)
			}
			continue
		}
		if !r.Succeeded || len(r.Revisions) != len(test.mutations) {
			t.Errorf("%s: %+v, want success", test.name, r)
			continue
		}
		checkRevisions(t, b, test.name, before.Current, test.mutations, r)
	}
	if e, _, err := storage.GetEntry(t.Context(), b, "/other", storage.Read{}); err != nil || e.Revision != other {
		t.Errorf("a conflict changed /other: %+v, %v", e, err)
	}
	testNoCommits(t, b)
}

// checkRevisions wants each change of a commit to have its own, consecutive revision.
func checkRevisions(t *testing.T, b storage.Backend, name string, before int64, mutations []storage.Mutation, r *storage.CommitResult) {
	t.Helper()
	last := int64(0)
	for i := range mutations {
		revision := r.Revisions[i]
		if revision == 0 {
			continue
		}
		if revision <= before || last != 0 && revision != last+1 {
			t.Errorf("%s: the revisions are %v after %d", name, r.Revisions, before)
		}
		last = revision
		e, _, err := storage.GetEntry(t.Context(), b, mutations[i].Key, storage.Read{})
		if deleted := mutations[i].Operation == storage.Delete; err != nil || deleted != (e == nil) || e != nil && e.Revision != revision {
			t.Errorf("%s: %s is %+v, %v", name, mutations[i].Key, e, err)
		}
	}
	if last != 0 && last != r.Revision || last == 0 && r.Revision != before {
		t.Errorf("%s: the commit is at %d, its changes at %v", name, r.Revision, r.Revisions)
	}
}

// testFresh: a fresh read has no section that is older than the body, now and in the past.
func testFresh(t *testing.T, b storage.Backend) {
	const key = "/fresh"
	long := strings.Repeat("of the second body, ", 4000)
	revision, states := int64(0), map[int64]string{}
	for _, step := range []struct {
		write storage.Value
		want  string
	}{
		{storage.Value{{Name: "body", Data: []byte("1")}, {Name: "brief", Data: []byte("of 1")}}, "of 1"},
		{storage.Value{{Name: "body", Data: []byte("2")}}, ""}, // by a program that does not know of it
		{storage.Value{{Name: "body", Data: []byte("2")}, {Name: "brief", Data: []byte(long)}}, long},
		{storage.Value{{Name: "later", Data: []byte("x")}}, long},
		{storage.Value{{Name: "body", Data: []byte("2")}, {Name: "brief", Data: []byte(long)}}, long}, // the same again
		{storage.Value{{Name: "body", Data: []byte("3")}, {Name: "brief", Data: []byte("of 3")}}, "of 3"},
	} {
		revision = commit(t, b, storage.Mutation{Key: key, Expect: revision, Value: step.write}).Revision
		states[revision] = step.want
		read := storage.Read{Sections: []string{"brief"}, Fresh: true}
		e, _, err := storage.GetEntry(t.Context(), b, key, read)
		if err != nil || string(e.Value.Section("brief")) != step.want || e.Value.Body() != nil {
			t.Errorf("after %.20s: %+.40v, %v", step.write[0].Data, e, err)
		}
		for at, want := range states {
			for _, read := range []storage.Read{read, {Sections: []string{"body", "brief"}, Fresh: true}} {
				page := scan(t, b, storage.ScanRequest{From: key, To: key + "0", Revision: at, Read: read})
				if len(page.Entries) != 1 || string(page.Entries[0].Value.Section("brief")) != want {
					t.Errorf("at %d the section is not %.20q: %.60v", at, want, page.Entries)
				}
			}
		}
	}
	remove(t, b, key, revision)
}

func testNoCommits(t *testing.T, b storage.Backend) {
	many := make([]storage.Mutation, storage.MaxMutations+1)
	for i := range many {
		many[i] = putOf(fmt.Sprintf("/many/%d", i), "x", 0)
	}
	for name, mutations := range map[string][]storage.Mutation{
		"nothing":         {},
		"too many":        many,
		"too large":       {{Key: "/large", Value: storage.Body(make([]byte, storage.MaxCommitBytes+1))}},
		"twice":           {putOf("/x", "1", 0), {Operation: storage.Delete, Key: "/x", Expect: storage.AnyRevision}},
		"NUL":             {putOf("/x\x00", "1", 0)},
		"no key":          {putOf("", "1", 0)},
		"no section":      {{Key: "/x"}},
		"section name":    {{Key: "/x", Value: storage.Value{{Name: "a/b", Data: []byte("x")}}}},
		"group name":      {{Key: "/x", Value: storage.Body([]byte("x")), Terms: []storage.TermChange{{Group: "A"}}}},
		"range":           {{Operation: storage.CheckEmpty, From: "/b", To: "/a"}},
		"check of any":    {{Operation: storage.Check, Key: "/x", Expect: storage.AnyRevision}},
		"value to delete": {{Operation: storage.Delete, Key: "/a", Expect: storage.AnyRevision, Value: storage.Body([]byte("x"))}},
	} {
		if r, err := b.Commit(t.Context(), mutations...); err == nil {
			t.Errorf("%s: %+v, want an error", name, r)
		}
	}
	r := commit(t, b, many[:storage.MaxMutations]...)
	if r.Revisions[storage.MaxMutations-1]-r.Revisions[0] != storage.MaxMutations-1 {
		t.Errorf("%d puts have the revisions %v", storage.MaxMutations, r.Revisions)
	}
}
