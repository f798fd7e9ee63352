package memory

import (
	"context"
	"errors"
	"slices"

	"tallyman/storage"
)

var errState = errors.New("memory: an index needs a name and a version")

// IndexState implements storage.Backend.
func (s *Store) IndexState(ctx context.Context, name string) (storage.IndexState, error) {
	if err := s.lock(ctx); err != nil {
		return storage.IndexState{}, err
	}
	defer s.mu.Unlock()
	return s.indexes[name], nil
}

// FillIndex implements storage.Backend.
func (s *Store) FillIndex(ctx context.Context, req storage.FillRequest) (bool, error) {
	if req.Name == "" || req.Next.Version == "" {
		return false, errState
	}
	if err := s.lock(ctx); err != nil {
		return false, err
	}
	defer s.mu.Unlock()
	if s.indexes[req.Name] != req.State {
		return false, nil
	}
	for _, e := range req.Entries {
		v := s.entries[e.Key]
		if v.at() != e.Revision || v == nil {
			continue
		}
		v.groups[e.Group] = storage.HashTerms(e.Terms)
		v.terms = mergeGroups(v.groups)
		v.add(e.Section)
	}
	if req.Next.Complete && req.Next.Since == 0 {
		req.Next.Since = s.revision
	}
	s.indexes[req.Name] = req.Next
	return true, nil
}

// add adds a section that is made of the body of v, or puts it in the place of one that is.
func (v *version) add(s storage.Section) {
	at := slices.IndexFunc(v.value, func(other storage.Section) bool { return other.Name == s.Name })
	switch {
	case s.Data == nil:
	case at < 0:
		v.value = append(slices.Clone(v.value), s)
		v.value.Sort()
		v.written[s.Name] = v.revision
	case v.written[s.Name] >= v.written[storage.SectionBody]:
		v.value = slices.Clone(v.value)
		v.value[at] = s
	}
}

// indexed reports whether scans by term are exact at revision, 0 for now.
func (s *Store) indexed(revision int64) bool {
	for _, state := range s.indexes {
		if !state.Complete || revision != 0 && revision < state.Since {
			return false
		}
	}
	return len(s.indexes) > 0
}

// CountTerms implements storage.Backend.
func (s *Store) CountTerms(ctx context.Context, terms []string) ([]int64, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	counts := make([]int64, len(terms))
	for i, term := range terms {
		for _, v := range s.entries {
			if storage.HasTerm(v.terms, storage.HashTerm(term)) {
				counts[i]++
			}
		}
	}
	return counts, nil
}
