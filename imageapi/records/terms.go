package records

import (
	"context"
	"errors"
	"strings"

	"tallyman/storage"
)

// StoredTerms returns the terms that a store has for the record under key. It fails if the value is
// none.
func StoredTerms(key string, value []byte) ([]storage.TermChange, error) {
	switch {
	case strings.HasPrefix(key, HoldingPrefix):
		return []storage.TermChange{{Group: holdingGroup, Terms: HoldingTerms(key)}}, nil
	case strings.HasPrefix(key, TagPrefix), strings.HasPrefix(key, DeletedPrefix):
		tag, err := decodeTag(&storage.Entry{Key: key, Value: storage.Body(value)})
		if err != nil {
			return nil, err
		}
		return []storage.TermChange{{Group: tagGroup, Terms: TagTerms(tag)}}, nil
	}
	return nil, nil
}

// each calls fn with the keys under prefix that carry a term or, as long as records may lack terms,
// with those of which carries says so. A store in the format of an older version keeps no terms.
func (s *Store) each(ctx context.Context, prefix, term string, carries func(*storage.Entry) bool, fn func(key string) error) error {
	complete, err := s.indexed.Load(), error(nil)
	if !complete {
		complete, err = s.Complete(ctx)
	}
	if err == nil && complete {
		err = storage.EachWithTerm(ctx, s.options.Backend, prefix, term, fn)
	}
	if err != nil && !errors.Is(err, storage.ErrNoIndex) || err == nil && complete {
		return err
	}
	return storage.Each(ctx, s.options.Backend, prefix, false, func(e *storage.Entry) error {
		if carries(e) {
			return fn(e.Key)
		}
		return nil
	})
}

// CompleteTerms writes the records anew that lack terms.
func (s *Store) CompleteTerms(ctx context.Context) error {
	for _, prefix := range []string{TagPrefix, DeletedPrefix, HoldingPrefix} {
		var lacking []string
		err := eachWithTerms(ctx, s.options.Backend, prefix, func(e *storage.Entry) {
			if m, err := withTerms(e); err == nil && m != nil {
				lacking = append(lacking, e.Key)
			}
		})
		for _, key := range lacking {
			if err == nil {
				err = s.completeTerms(ctx, key)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func eachWithTerms(ctx context.Context, backend storage.Backend, prefix string, fn func(*storage.Entry)) error {
	for request := (storage.ScanRequest{From: prefix, To: prefix + "\xff", Limit: 200, Read: storage.Read{Terms: true}}); ; {
		page, err := backend.Scan(ctx, request)
		if err != nil {
			return err
		}
		for i := range page.Entries {
			fn(&page.Entries[i])
		}
		if !page.More {
			return nil
		}
		request.From = page.Entries[len(page.Entries)-1].Key + "\x00"
	}
}

// completeTerms writes one record anew, unless it has its terms or is gone by now.
func (s *Store) completeTerms(ctx context.Context, key string) error {
	for {
		entry, _, err := storage.GetEntry(ctx, s.options.Backend, key, storage.Read{Terms: true})
		if err != nil || entry == nil {
			return err
		}
		m, err := withTerms(entry)
		if err != nil || m == nil {
			return nil //nolint:nilerr // one that cannot be read is for `store check`
		}
		result, err := s.options.Backend.Commit(ctx, *m)
		if err != nil || result.Succeeded {
			return err
		}
	}
}

// withTerms returns the mutation that gives a record its terms, nil if it has them.
func withTerms(e *storage.Entry) (*storage.Mutation, error) {
	if e.Err != nil {
		return nil, e.Err
	}
	changes, err := StoredTerms(e.Key, e.Value.Body())
	if err != nil {
		return nil, err
	}
	for i := range changes {
		for _, term := range changes[i].Apply(nil) {
			if !storage.HasTerm(e.Terms, term) {
				return &storage.Mutation{Key: e.Key, Expect: e.Revision, Value: storage.Body(e.Value.Body()), Terms: changes}, nil
			}
		}
	}
	return nil, nil
}
