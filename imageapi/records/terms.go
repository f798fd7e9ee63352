package records

import (
	"context"
	"errors"
	"slices"
	"strings"

	"tallyman/storage"
)

// StoredTerms returns the terms that a store has for the record under key. It fails if the value is
// none.
func StoredTerms(key string, value []byte) ([]storage.TermChange, error) {
	switch {
	case strings.HasPrefix(key, HoldingPrefix):
		return []storage.TermChange{{Group: holdingGroup, Terms: holdingTerms(key)}}, nil
	case strings.HasPrefix(key, TagPrefix), strings.HasPrefix(key, DeletedPrefix):
		tag, err := DecodeTag(&storage.Entry{Key: key, Value: storage.Body(value)})
		if err != nil {
			return nil, err
		}
		return []storage.TermChange{{Group: tagGroup, Terms: tagTerms(tag)}}, nil
	case strings.HasPrefix(key, StreamPrefix):
		stream, err := DecodeStream(&storage.Entry{Key: key, Value: storage.Body(value)})
		if err != nil {
			return nil, err
		}
		return streamTerms(stream), nil
	}
	return nil, nil
}

// each calls fn with the entries under prefix that carry a term or, as long as records may lack terms,
// with those of which carries says so. A store in the format of an older version keeps no terms. The
// entries may lack values.
func (s *Store) each(ctx context.Context, prefix, term string, carries func(*storage.Entry) bool, fn func(*storage.Entry) error) error {
	if !s.indexed.Load() {
		if _, err := s.Complete(ctx); err != nil {
			return err
		}
	}
	if s.indexed.Load() {
		if err := storage.EachWithTerm(ctx, s.options.Backend, prefix, term, fn); !errors.Is(err, storage.ErrNoIndex) {
			return err
		}
	}
	return storage.Each(ctx, s.options.Backend, prefix, false, func(e *storage.Entry) error {
		if carries(e) {
			return fn(e)
		}
		return nil
	})
}

// eachWhole is each for entries with their values, which are read once all are found. fn gets those that are still
// there, of which one may carry the term no longer.
func (s *Store) eachWhole(ctx context.Context, prefix, term string, carries func(*storage.Entry) bool, fn func(*storage.Entry) error) error {
	var keys []string
	err := s.each(ctx, prefix, term, carries, func(e *storage.Entry) error {
		keys = append(keys, e.Key)
		return nil
	})
	if err != nil {
		return err
	}
	for page := range slices.Chunk(keys, namesPage) {
		result, err := s.options.Backend.Get(ctx, storage.GetRequest{Keys: page})
		if err != nil {
			return err
		}
		for _, e := range result.Entries {
			if e == nil {
				continue
			}
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// CompleteTerms writes the records anew that lack terms. One that is written meanwhile has got them
// by that, and one that cannot be read is for `store check`.
func (s *Store) CompleteTerms(ctx context.Context) error {
	for _, prefix := range []string{TagPrefix, DeletedPrefix, HoldingPrefix} {
		request := storage.ScanRequest{From: prefix, To: prefix + "\xff", Limit: 200, Read: storage.Read{Terms: true}}
		err := storage.EachOf(ctx, s.options.Backend, request, func(e *storage.Entry) error {
			changes, err := StoredTerms(e.Key, e.Value.Body())
			if e.Err != nil || err != nil || hasTerms(e, changes) {
				return nil //nolint:nilerr // as said
			}
			m := storage.Mutation{Key: e.Key, Expect: e.Revision, Value: storage.Body(e.Value.Body()), Terms: changes}
			_, err = s.options.Backend.Commit(ctx, m)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hasTerms reports whether an entry has the terms that changes give it.
func hasTerms(e *storage.Entry, changes []storage.TermChange) bool {
	for i := range changes {
		for _, term := range changes[i].Apply(nil) {
			if !storage.HasTerm(e.Terms, term) {
				return false
			}
		}
	}
	return true
}
