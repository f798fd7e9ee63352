package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"tallyman/storage"
)

// CountTerms implements storage.Backend.
func (s *Store) CountTerms(ctx context.Context, terms []string) ([]int64, error) {
	args := []any{formatAny}
	for _, term := range terms {
		hash := hashed(term)
		args = append(args, "["+hash, "["+hash+"\xff")
	}
	r, err := s.read(ctx, countScript, []string{s.meta, s.terms}, args...)
	if err != nil {
		return nil, err
	}
	counts := make([]int64, len(terms))
	for i := range counts {
		counts[i] = r.integer(i)
	}
	return counts, nil
}

// IndexState implements storage.Backend.
func (s *Store) IndexState(ctx context.Context, name string) (storage.IndexState, error) {
	if s.format.Load() == 1 {
		return storage.IndexState{}, storage.ErrNoIndex
	}
	state, _, err := s.indexState(ctx, name)
	return state, err
}

// indexState returns the state of an index, and as it is stored.
func (s *Store) indexState(ctx context.Context, name string) (state storage.IndexState, stored string, err error) {
	r, err := s.read(ctx, stateScript, []string{s.meta, s.indexes}, formatAny, name)
	if stored = r.text(0); err != nil || stored == "" {
		return state, "", err
	}
	if err := json.Unmarshal([]byte(stored), &state); err != nil {
		return state, "", fmt.Errorf("redis: %s: %w", s.indexes, err)
	}
	return state, stored, nil
}

// FillIndex implements storage.Backend. It stores values of format 1 anew.
func (s *Store) FillIndex(ctx context.Context, req storage.FillRequest) (bool, error) {
	if req.Name == "" || req.Next.Version == "" {
		return false, errors.New("redis: an index needs a name and a version")
	}
	state, stored, err := s.indexState(ctx, req.Name)
	if err != nil || state != req.State {
		return false, err
	}
	var toStore any = req.Next
	if req.Next.Complete {
		toStore = storedState{req.Next, req.Next.Since}
	}
	next, err := json.Marshal(toStore)
	if err != nil {
		return false, err
	}
	keys, args := []string{s.meta, s.indexes, s.terms}, []any{formatAny, req.Name, stored, next}
	for i := range req.Entries {
		e := &req.Entries[i]
		keys = append(keys, s.valueKey(e.Key), s.objectKey(e.Key))
		args = append(args, e.Key, digits(e.Revision), e.Group, storage.EncodeTerms(storage.HashTerms(e.Terms)))
	}
	r, err := s.run(ctx, fillScript, keys, args...)
	if err != nil {
		return false, err
	}
	for i := range req.Entries { // it is cached without these terms
		s.cache.drop(req.Entries[i].Revision)
	}
	return r.integer(0) == 1, nil
}

// storedState is an IndexState whose revision the script fills in if it is 0.
type storedState struct {
	storage.IndexState
	Since int64 `json:"since"`
}
