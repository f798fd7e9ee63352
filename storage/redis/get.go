package redis

import (
	"context"
	"fmt"

	"tallyman/storage"
)

// getBatch bounds how many values one call of Get reads.
const getBatch = 256

// Get implements storage.Backend.
func (s *Store) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	if len(req.Keys) > getBatch {
		return nil, fmt.Errorf("redis: want %d keys at once: at most %d", len(req.Keys), getBatch)
	}
	names, terms := wants(&req.Read)
	keys, args := []string{s.meta, s.index}, []any{formatAny, names, terms}
	known := make([]*storage.Entry, len(req.Keys))
	for i, key := range req.Keys {
		known[i] = s.cache.latest(key, &req.Read)
		keys = append(keys, s.valueKey(key), s.objectKey(key))
		args = append(args, digits(revisionOf(known[i])), "["+bound(key), "("+bound(key+"\x00"))
	}
	r, err := s.read(ctx, getScript, keys, args...)
	if err != nil {
		return nil, err
	}
	result := &storage.GetResult{Revision: r.integer(0), Entries: make([]*storage.Entry, len(req.Keys))}
	s.observe(result.Revision)
	for i, key := range req.Keys {
		value := r.list(i + 1)
		switch {
		case len(value) == 0:
			if _, revision, ok := splitMember(r.text(i + 1)); ok {
				if _, err := s.forget(ctx, key, revision); err != nil {
					return nil, err
				}
			}
		case known[i] != nil && value.integer(0) == known[i].Revision:
			result.Entries[i] = known[i]
		default:
			result.Entries[i] = decodeValue(key, value, &req.Read)
			s.cache.add(key, result.Entries[i], &req.Read)
		}
	}
	return result, nil
}
