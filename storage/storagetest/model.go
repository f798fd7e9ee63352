package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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

// checkCurrent wants a conflict to return the entry that stands in the way.
func (m *model) checkCurrent(t *testing.T, mutation *storage.Mutation, current *storage.Entry) {
	t.Helper()
	if mutation.Operation == storage.CheckEmpty {
		if e, ok := m.entries[current.Key]; !ok || e.revision != current.Revision || current.Key < mutation.From || current.Key >= mutation.To {
			t.Fatalf("%+v is in the way of %+v", current, mutation)
		}
		return
	}
	if e, ok := m.entries[mutation.Key]; ok != (current != nil) || ok && (current.Revision != e.revision || string(current.Value.Section("other")) != e.sections["other"]) {
		t.Fatalf("%+v is in the way of %+v, want %+v", current, mutation, e)
	}
}

// compareScan compares a random scan.
func (m *model) compareScan(t *testing.T, b storage.Backend) {
	t.Helper()
	req := storage.ScanRequest{From: fmt.Sprintf("/k%02d", m.random.IntN(modelKeys)), To: "0", Limit: m.random.IntN(8), Read: storage.Read{Terms: true}}
	entries, revision := m.entries, int64(0)
	if m.random.IntN(4) > 0 && len(m.all) > 0 {
		req.Revision = m.all[m.random.IntN(len(m.all))]
		revision = m.ends[req.Revision]
		entries = m.states[revision]
	}
	if m.random.IntN(2) == 0 {
		req.Term = fmt.Sprint("t", m.random.IntN(modelTerms))
	} else {
		req.Count = m.random.IntN(2) == 0
	}
	if m.random.IntN(4) == 0 {
		req.To = fmt.Sprintf("/k%02d", m.random.IntN(modelKeys))
	}
	var want []string
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if key >= req.From && key < req.To && (req.Term == "" || entries[key].has(req.Term)) {
			want = append(want, entries[key].print(key))
		}
	}
	count, more := int64(len(want)), req.Limit > 0 && len(want) > req.Limit
	if more {
		want = want[:req.Limit]
	}
	got := scan(t, b, req)
	var entriesGot []string
	for i := range got.Entries {
		entriesGot = append(entriesGot, printEntry(&got.Entries[i]))
	}
	if !slices.Equal(entriesGot, want) || got.More != more || req.Count && got.Count != count || revision != 0 && got.Revision != revision {
		t.Fatalf("%+v (commit ends at %d):\n got %v, more %v, count %d, at %d\nwant %v, more %v, count %d", req, revision, entriesGot, got.More, got.Count, got.Revision, want, more, count)
	}
}

// compareLog follows the history from after to its end, in batches and once from every
// third revision.
func (m *model) compareLog(t *testing.T, b storage.Backend, after int64) {
	t.Helper()
	last := m.all[len(m.all)-1]
	begin := append([]int64{after}, m.all...)
	for i := 0; i < len(begin) && begin[i] < last; i += 1 + 40*min(i, 1) {
		position := begin[i]
		for position < last {
			changes, err := b.Log(t.Context(), storage.LogRequest{After: position, Limit: 1 + m.random.IntN(9), Read: storage.Read{Terms: true}})
			if err != nil {
				t.Fatalf("after %d: %v", position, err)
			}
			for n := range changes {
				m.compareChange(t, &changes[n], position)
				position = changes[n].Revision
			}
			if m.ends[position] != position {
				t.Fatalf("a batch ends inside a commit, at %d of %d", position, m.ends[position])
			}
		}
	}
}

// compareChange compares one change, which follows position.
func (m *model) compareChange(t *testing.T, c *storage.Change, position int64) {
	t.Helper()
	end, known := m.ends[c.Revision]
	if !known || c.Before != position || c.Commit != end || c.Delete != (c.Current == nil) {
		t.Fatalf("%+v after %d: want before %d and commit %d", c, position, position, end)
	}
	after, exists := m.states[end][c.Key]
	if exists == c.Delete || exists && printEntry(c.Current) != after.print(c.Key) {
		t.Fatalf("change %d made %s, want %s", c.Revision, printEntry(c.Current), after.print(c.Key))
	}
	if c.Previous == nil {
		return
	}
	before, exists := m.states[m.ends[c.Previous.Revision]][c.Key]
	if !exists || printEntry(c.Previous) != before.print(c.Key) {
		t.Fatalf("change %d replaced %s, want %s", c.Revision, printEntry(c.Previous), before.print(c.Key))
	}
}

// testConcurrentModel has several goroutines make commits of several keys while the history is
// followed: replaying it gives the content of the store.
func testConcurrentModel(t *testing.T, b storage.Backend) {
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	completeIndex(t, b)
	var writers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() {
			m := &model{random: rand.New(rand.NewPCG(uint64(n), 5))} //nolint:gosec // a test wants the same numbers each time
			for range 60 {
				mutations := m.commit()
				for i := range mutations {
					if mutations[i].Expect = storage.AnyRevision; mutations[i].Operation == storage.Check {
						mutations[i].Expect = 0
					}
				}
				if _, err := b.Commit(t.Context(), mutations...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		writers.Wait()
		close(done)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	state, position := map[string]string{}, start.Current
	for {
		select {
		case <-done:
			w, err := b.Window(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if position >= w.Current {
				compareReplay(t, b, state)
				return
			}
		default:
		}
		position = replay(ctx, t, b, state, position)
	}
}

// replay applies a batch of changes, if there is one soon, and returns the position.
func replay(ctx context.Context, t *testing.T, b storage.Backend, state map[string]string, position int64) int64 {
	t.Helper()
	w, err := b.Window(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if w.Current == position {
		return position
	}
	changes, err := b.Log(ctx, storage.LogRequest{After: position, Limit: 7, Read: storage.Read{Terms: true}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range changes {
		c := &changes[i]
		if c.Before != position || state[c.Key] != "" && printEntry(c.Previous) != state[c.Key] {
			t.Fatalf("%+v replaced %s after %d, want %s", c, printEntry(c.Previous), position, state[c.Key])
		}
		if state[c.Key] = printEntry(c.Current); c.Delete {
			delete(state, c.Key)
		}
		position = c.Revision
	}
	return position
}

func compareReplay(t *testing.T, b storage.Backend, state map[string]string) {
	t.Helper()
	r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Read: storage.Read{Terms: true}})
	for i := range r.Entries {
		if e := &r.Entries[i]; state[e.Key] != printEntry(e) {
			t.Errorf("the history ends with %s, the store holds %s", state[e.Key], printEntry(e))
		}
	}
	if len(state) != len(r.Entries) {
		t.Errorf("the history ends with %d entries, the store holds %d", len(state), len(r.Entries))
	}
	for i := range modelTerms {
		term, want := fmt.Sprint("t", i), 0
		for e := range r.Entries {
			if storage.HasTerm(r.Entries[e].Terms, storage.HashTerm(term)) {
				want++
			}
		}
		if got := len(strings.Fields(names(t, b, term, 0))); got != want {
			t.Errorf("%d entries carry %s, a scan by it has %d", want, term, got)
		}
	}
}
