package storagetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"tallyman/storage"
)

// modelEntry is an entry of the model: plain maps.
type modelEntry struct {
	revision int64
	sections map[string]string
	groups   map[string]map[string]bool
}

func (e modelEntry) has(term string) bool {
	for _, group := range e.groups {
		if group[term] {
			return true
		}
	}
	return false
}

func (e modelEntry) clone() modelEntry {
	groups := map[string]map[string]bool{}
	for name, terms := range e.groups {
		groups[name] = maps.Clone(terms)
	}
	sections := maps.Clone(e.sections)
	if sections == nil {
		sections = map[string]string{}
	}
	return modelEntry{e.revision, sections, groups}
}

// print shows an entry as the backend's are shown by printEntry.
func (e modelEntry) print(key string) string {
	var terms []string
	for i := range modelTerms {
		if term := fmt.Sprint("t", i); e.has(term) {
			terms = append(terms, term)
		}
	}
	var sections []string
	for _, name := range slices.Sorted(maps.Keys(e.sections)) {
		sections = append(sections, name+"="+e.sections[name])
	}
	return fmt.Sprintf("%s@%d[%s](%s)", key, e.revision, strings.Join(sections, ","), strings.Join(terms, ","))
}

func printEntry(e *storage.Entry) string {
	if e == nil {
		return "none"
	}
	var terms, sections []string
	for i := range modelTerms {
		if term := fmt.Sprint("t", i); storage.HasTerm(e.Terms, storage.HashTerm(term)) {
			terms = append(terms, term)
		}
	}
	for _, s := range e.Value {
		sections = append(sections, s.Name+"="+string(s.Data))
	}
	return fmt.Sprintf("%s@%d[%s](%s)", e.Key, e.Revision, strings.Join(sections, ","), strings.Join(terms, ","))
}

const (
	modelKeys  = 20
	modelTerms = 6
)

// model is a store made of maps, with a copy of every state that it had.
type model struct {
	random  *rand.Rand
	entries map[string]modelEntry
	ends    map[int64]int64                 // of each revision, the last of its commit
	states  map[int64]map[string]modelEntry // by the last revision of a commit
	all     []int64                         // revisions
}

// mutation makes a random mutation of a key. Most of its conditions hold.
func (m *model) mutation(key string) storage.Mutation {
	before, exists := m.entries[key]
	expect := before.revision
	switch m.random.IntN(12) {
	case 0:
		expect++
	case 1, 2:
		expect = storage.AnyRevision
	}
	switch kind := m.random.IntN(8); {
	case kind < 2 && (exists || expect != 0):
		return storage.Mutation{Operation: storage.Delete, Key: key, Expect: expect}
	case kind == 2 && expect >= 0:
		return storage.Mutation{Operation: storage.Check, Key: key, Expect: expect}
	}
	put := storage.Mutation{Key: key, Expect: expect}
	for _, name := range []string{"body", "cells", "metadata"} {
		switch m.random.IntN(4) {
		case 0:
			put.Value = append(put.Value, storage.Section{Name: name, Data: []byte(strings.Repeat(fmt.Sprint(m.random.IntN(1000), " "), 1+m.random.IntN(60)))})
		case 1:
			put.Value = append(put.Value, storage.Section{Name: name})
		}
	}
	put.Value = append(put.Value, storage.Section{Name: "other", Data: []byte(fmt.Sprint(m.random.IntN(3)))})
	for _, group := range []string{"one", "two"} {
		if m.random.IntN(2) == 0 {
			change := storage.TermChange{Group: group, Operation: storage.TermOperation(m.random.IntN(3))}
			for range m.random.IntN(3) {
				change.Terms = append(change.Terms, fmt.Sprint("t", m.random.IntN(modelTerms)))
			}
			put.Terms = append(put.Terms, change)
		}
	}
	return put
}

// commit makes a random commit.
func (m *model) commit() []storage.Mutation {
	var mutations []storage.Mutation
	for _, i := range m.random.Perm(modelKeys)[:1+m.random.IntN(5)] {
		mutations = append(mutations, m.mutation(fmt.Sprintf("/k%02d", i)))
	}
	if m.random.IntN(4) == 0 {
		from := m.random.IntN(modelKeys)
		check := storage.Mutation{Operation: storage.CheckEmpty, From: fmt.Sprintf("/k%02d", from), To: fmt.Sprintf("/k%02d", from+1+m.random.IntN(2))}
		if m.random.IntN(2) == 0 {
			check.Term = fmt.Sprint("t", m.random.IntN(modelTerms))
		}
		mutations = append(mutations, check)
	}
	return mutations
}

// holds reports whether a mutation's condition holds.
func (m *model) holds(mutation *storage.Mutation) bool {
	if mutation.Operation == storage.CheckEmpty {
		for key, e := range m.entries {
			if key >= mutation.From && key < mutation.To && (mutation.Term == "" || e.has(mutation.Term)) {
				return false
			}
		}
		return true
	}
	e, exists := m.entries[mutation.Key]
	return mutation.Expect == storage.AnyRevision || e.revision == mutation.Expect && (exists || mutation.Operation != storage.Delete)
}

// conflict returns the first mutation whose condition does not hold, -1 for none.
func (m *model) conflict(mutations []storage.Mutation) int {
	return slices.IndexFunc(mutations, func(mutation storage.Mutation) bool { return !m.holds(&mutation) })
}

// apply makes the changes of a commit that the backend has made with these revisions.
func (m *model) apply(mutations []storage.Mutation, r *storage.CommitResult) {
	for i := range mutations {
		mutation, revision := &mutations[i], r.Revisions[i]
		if revision == 0 {
			continue
		}
		m.ends[revision] = r.Revision
		m.all = append(m.all, revision)
		if mutation.Operation == storage.Delete {
			delete(m.entries, mutation.Key)
			continue
		}
		e := m.entries[mutation.Key].clone()
		e.revision = revision
		for _, s := range mutation.Value {
			if e.sections[s.Name] = string(s.Data); s.Data == nil {
				delete(e.sections, s.Name)
			}
		}
		for _, c := range mutation.Terms {
			group := e.groups[c.Group]
			if group == nil || c.Operation == storage.ReplaceTerms {
				group = map[string]bool{}
			}
			for _, term := range c.Terms {
				group[term] = c.Operation != storage.RemoveTerms
			}
			e.groups[c.Group] = group
		}
		m.entries[mutation.Key] = e
	}
	m.states[r.Revision] = maps.Clone(m.entries)
}

// testModel makes random commits and compares reads at current, past and in-commit
// revisions, and the history, with the model.
func testModel(t *testing.T, b storage.Backend) {
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	completeIndex(t, b)
	m := &model{
		random:  rand.New(rand.NewPCG(3, 4)), //nolint:gosec // a test wants the same numbers each time
		entries: map[string]modelEntry{}, ends: map[int64]int64{}, states: map[int64]map[string]modelEntry{},
	}
	conflicts := 0
	for i := range 300 {
		mutations := m.commit()
		want := m.conflict(mutations)
		r, err := b.Commit(t.Context(), mutations...)
		if err != nil {
			t.Fatalf("commit %d: %v", i, err)
		}
		if r.Succeeded != (want < 0) || !r.Succeeded && r.Conflict != want {
			t.Fatalf("commit %d: %+v, want the conflict %d of %+v", i, r, want, mutations)
		}
		if !r.Succeeded {
			conflicts++
			m.checkCurrent(t, &mutations[want], r.Current)
			continue
		}
		m.apply(mutations, r)
		if i%3 == 0 {
			m.compareScan(t, b)
		}
	}
	if conflicts < 30 || len(m.all) < 300 {
		t.Errorf("%d conflicts, %d changes: the model is too tame", conflicts, len(m.all))
	}
	for range 200 {
		m.compareScan(t, b)
	}
	m.compareLog(t, b, start.Current)
	half := m.ends[m.all[len(m.all)/2]]
	if err := b.Compact(t.Context(), half); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: m.all[0]}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("a scan from before the compaction: %v", err)
	}
	m.all = slices.DeleteFunc(m.all, func(r int64) bool { return m.ends[r] < half || m.ends[r] == half && r != half })
	for range 100 {
		m.compareScan(t, b)
	}
	m.compareLog(t, b, half)
}
