package redis

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
)

// loadBatch bounds how many values one command reads, so that no other client
// of the server waits long for its turn.
const loadBatch = 64

// ref asks for one value.
type ref struct {
	key      string
	revision int64
	replaced bool   // it is known not to be the current one
	value    []byte // nil until loaded, and if there is no such value any more
}

// load fills in the values of refs, from the cache or from Redis. Values are
// immutable, so it does not matter when they are read: the current value of a
// key is tried first, then the place where it is moved when it is replaced.
func (s *Store) load(ctx context.Context, refs []ref) error {
	var current, replaced []*ref
	for i := range refs {
		r := &refs[i]
		if value, ok := s.cache.get(r.revision); ok {
			r.value = value
		} else if r.replaced {
			replaced = append(replaced, r)
		} else {
			current = append(current, r)
		}
	}
	if err := s.loadFrom(ctx, current, func(r *ref) string { return s.objectKey(r.key) }); err != nil {
		return err
	}
	for _, r := range current {
		if r.value == nil {
			replaced = append(replaced, r)
		}
	}
	return s.loadFrom(ctx, replaced, func(r *ref) string { return s.versionKey(r.revision) })
}

func (s *Store) loadFrom(ctx context.Context, refs []*ref, place func(*ref) string) error {
	if len(refs) == 0 {
		return nil
	}
	var batches []*goredis.SliceCmd
	err := s.do(ctx, func(ctx context.Context) error {
		pipe := s.client.Pipeline()
		batches = nil
		for start := 0; start < len(refs); start += loadBatch {
			var keys []string
			for _, r := range refs[start:min(start+loadBatch, len(refs))] {
				keys = append(keys, place(r))
			}
			batches = append(batches, pipe.MGet(ctx, keys...))
		}
		_, err := pipe.Exec(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for i, batch := range batches {
		for j, stored := range batch.Val() {
			r := refs[i*loadBatch+j]
			text, ok := stored.(string)
			if !ok {
				continue
			}
			revision, value, err := decode(text)
			if err != nil {
				return fmt.Errorf("redis: %s: %w", place(r), err)
			}
			if revision == r.revision {
				r.value = value
				s.cache.offer(r.key, version{revision, value})
			}
		}
	}
	return nil
}
