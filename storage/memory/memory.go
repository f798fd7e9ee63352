// Package memory implements storage.Backend in the memory of one process. It is the
// fast double for tests: nothing survives Close.
package memory

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"tallyman/storage"
)

// Options configures New. The zero value is usable.
type Options struct {
	// History bounds the history.
	History storage.HistoryBounds
	// Now is the clock behind revisions. Nil means time.Now.
	Now func() time.Time
}

// Store is a storage.Backend in memory. Create it with New.
type Store struct {
	storage.Holds
	opts Options

	mu        sync.Mutex
	closed    bool
	entries   map[string]*version
	keys      []string // of entries, sorted
	log       []*change
	logBytes  int64
	revision  int64
	compacted int64
	bases     []int64 // the newest revisions that no commit made
	indexes   map[string]storage.IndexState
	changed   chan struct{} // closed and replaced when there is a change
}

var _ storage.Backend = (*Store)(nil)

// version is the value of a key between two changes. It never changes, except that
// FillIndex gives it terms.
type version struct {
	revision int64
	value    storage.Value
	written  map[string]int64 // by section, the revision of its content
	groups   map[string][]storage.Term
	terms    []storage.Term
}

// change is an element of the history.
type change struct {
	revision, commit, before int64
	key                      string
	previous, current        *version // nil if there is none
}

// New returns an empty store.
func New(o Options) *Store {
	o.History.SetDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Store{opts: o, entries: map[string]*version{}, indexes: map[string]storage.IndexState{}, changed: make(chan struct{})}
	s.revision = max(1, o.Now().UnixMicro())
	s.bases, s.compacted = []int64{s.revision}, s.revision-1
	return s
}

// Close implements storage.Backend.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return storage.ErrClosed
	}
	s.closed = true
	close(s.changed)
	return nil
}

// lock takes the lock, unless the store cannot be used. The caller unlocks.
func (s *Store) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return storage.ErrClosed
	}
	s.trimExceeding()
	return nil
}

// entry returns v as req asks for it, nil for nil.
func (v *version) entry(key string, read *storage.Read) *storage.Entry {
	if v == nil {
		return nil
	}
	e := &storage.Entry{Key: key, Revision: v.revision}
	for _, section := range v.value {
		outdated := v.written[section.Name] < v.written[storage.SectionBody]
		if read.Wants(section.Name) && (!read.Fresh || !outdated) {
			e.Value = append(e.Value, section)
		}
	}
	if read.Terms {
		e.Terms = v.terms
	}
	return e
}

// Get implements storage.Backend.
func (s *Store) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	result := &storage.GetResult{Revision: s.revision}
	for _, key := range req.Keys {
		result.Entries = append(result.Entries, s.entries[key].entry(key, &req.Read))
	}
	return result, nil
}

// Window implements storage.Backend.
func (s *Store) Window(ctx context.Context) (storage.Window, error) {
	if err := s.lock(ctx); err != nil {
		return storage.Window{}, err
	}
	defer s.mu.Unlock()
	return storage.Window{Compacted: s.compacted, Current: s.revision}, nil
}

// Commit implements storage.Backend.
func (s *Store) Commit(ctx context.Context, mutations ...storage.Mutation) (*storage.CommitResult, error) {
	if err := storage.ValidateMutations(mutations); err != nil {
		return nil, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for i := range mutations {
		if current, ok := s.holds(&mutations[i]); !ok {
			return &storage.CommitResult{Revision: s.revision, Conflict: i, Current: current}, nil
		}
	}
	next := max(s.revision+1, s.opts.Now().UnixMicro())
	var changes []*change
	result := &storage.CommitResult{Succeeded: true, Revisions: make([]int64, len(mutations))}
	for i := range mutations {
		m := &mutations[i]
		previous := s.entries[m.Key]
		if !m.Changes() || m.Operation == storage.Delete && previous == nil {
			continue
		}
		c := &change{revision: next + int64(len(changes)), before: s.revision, key: m.Key, previous: previous}
		if m.Operation == storage.Put {
			c.current = previous.with(m, c.revision)
		}
		s.set(m.Key, c.current)
		s.revision, result.Revisions[i] = c.revision, c.revision
		changes = append(changes, c)
	}
	for _, c := range changes {
		c.commit = s.revision
	}
	result.Revision = s.revision
	if len(changes) > 0 {
		s.log = append(s.log, changes...)
		for _, c := range changes {
			s.logBytes += c.size()
		}
		s.trimExceeding()
		close(s.changed)
		s.changed = make(chan struct{})
	}
	return result, nil
}

// holds reports whether the condition of m holds, and else returns the entry in its way.
func (s *Store) holds(m *storage.Mutation) (*storage.Entry, bool) {
	if m.Operation == storage.CheckEmpty {
		for _, key := range s.between(m.From, m.To) {
			if v := s.entries[key]; m.Term == "" || storage.HasTerm(v.terms, storage.HashTerm(m.Term)) {
				return &storage.Entry{Key: key, Revision: v.revision}, false
			}
		}
		return nil, true
	}
	current := s.entries[m.Key]
	if m.Expect == storage.AnyRevision || current.at() == m.Expect && (current != nil || m.Operation != storage.Delete) {
		return nil, true
	}
	return current.entry(m.Key, &storage.Read{}), false
}

func (v *version) at() int64 {
	if v == nil {
		return 0
	}
	return v.revision
}

// with returns the version that a put of m makes of v.
func (v *version) with(m *storage.Mutation, revision int64) *version {
	sections, written, groups := map[string][]byte{}, map[string]int64{}, map[string][]storage.Term{}
	if v != nil {
		for _, section := range v.value {
			sections[section.Name], written[section.Name] = section.Data, v.written[section.Name]
		}
		for name, terms := range v.groups {
			groups[name] = terms
		}
	}
	for _, section := range m.Value {
		if section.Data == nil {
			delete(sections, section.Name)
			continue
		}
		if before, known := sections[section.Name]; !known || !bytes.Equal(before, section.Data) {
			sections[section.Name], written[section.Name] = slices.Clone(section.Data), revision
		}
	}
	for i := range m.Terms {
		groups[m.Terms[i].Group] = m.Terms[i].Apply(groups[m.Terms[i].Group])
	}
	after := &version{revision: revision, written: written, groups: groups, terms: mergeGroups(groups)}
	for name, data := range sections {
		after.value = append(after.value, storage.Section{Name: name, Data: data})
	}
	after.value.Sort()
	return after
}

func mergeGroups(groups map[string][]storage.Term) []storage.Term {
	var all []storage.Term
	for _, terms := range groups {
		all = storage.MergeTerms(all, terms)
	}
	return all
}

// set makes key hold v, nothing if it is nil.
func (s *Store) set(key string, v *version) {
	at, found := slices.BinarySearch(s.keys, key)
	switch {
	case v == nil:
		delete(s.entries, key)
		s.keys = slices.Delete(s.keys, at, at+1)
		return
	case !found:
		s.keys = slices.Insert(s.keys, at, key)
	}
	s.entries[key] = v
}

// between returns the keys of a range.
func (s *Store) between(from, to string) []string {
	start, _ := slices.BinarySearch(s.keys, from)
	end, _ := slices.BinarySearch(s.keys, to)
	if start >= end {
		return nil
	}
	return s.keys[start:end]
}

// Stats implements storage.Backend.
func (s *Store) Stats(ctx context.Context) (storage.BackendStats, error) {
	if err := s.lock(ctx); err != nil {
		return storage.BackendStats{}, err
	}
	defer s.mu.Unlock()
	stats := storage.BackendStats{
		Window:  storage.Window{Compacted: s.compacted, Current: s.revision},
		Objects: int64(len(s.keys)), LogEntries: int64(len(s.log)), LogBytes: s.logBytes,
	}
	for _, v := range s.entries {
		stats.Bytes += int64(v.value.Size())
		stats.Terms += int64(len(v.terms))
	}
	stats.StoredBytes = stats.Bytes
	return stats, nil
}

// Confirm implements storage.Backend: a commit that was made is durable.
func (s *Store) Confirm(context.Context) error { return nil }
