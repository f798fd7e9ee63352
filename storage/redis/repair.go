package redis

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

const (
	// repairBatch is the number of keys that one step of a repair looks at.
	repairBatch = 500
	// repairTime bounds a repair. The next failed call begins another.
	repairTime = 10 * time.Minute
)

// repair begins to rebuild evicted indexes, unless this process does that already. Until
// the end commits and scans fail.
func (s *Store) repair() {
	if !s.repairing.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer s.repairing.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), repairTime)
		defer cancel()
		if err := s.rebuild(ctx); err != nil && !s.isClosed() {
			slog.Error("redis: evicted index not repaired", "err", err)
			pause(ctx, retryInterval)
		}
	}()
}

// rebuild makes the index of keys from the values.
func (s *Store) rebuild(ctx context.Context) error {
	unlock, err := s.Lock(ctx, "repair")
	if err != nil {
		return err
	}
	defer unlock()
	entered := int64(0)
	for _, prefix := range []string{s.valueKey(""), s.objectKey("")} {
		n, err := s.rebuildFrom(ctx, prefix)
		if err != nil {
			return err
		}
		entered += n
	}
	r, err := s.run(ctx, reindexedScript, []string{s.meta, s.index, s.terms, s.indexes}, formatAny)
	if err != nil {
		return err
	}
	missing, terms := max(0, r.integer(0)), r.integer(1) == 1
	if entered == 0 && missing == 0 && !terms {
		return nil // another process was first
	}
	slog.Warn("redis: evicted index rebuilt", "entries", entered, "missing", missing, "terms", terms)
	s.lost(fmt.Sprintf("Redis evicted an index of the store, and %d objects: set maxmemory-policy noeviction", missing))
	return nil
}

// rebuildFrom enters the objects whose keys begin with prefix, and returns their number.
func (s *Store) rebuildFrom(ctx context.Context, prefix string) (entered int64, err error) {
	node, err := s.node(ctx)
	if err != nil {
		return 0, err
	}
	pattern := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`).Replace(prefix) + "*"
	for cursor := uint64(0); ; {
		found, next, err := node.Scan(ctx, cursor, pattern, repairBatch).Result()
		if err != nil {
			return 0, err
		}
		keys, args := []string{s.meta, s.index}, []any{formatAny}
		for _, name := range found {
			key := strings.TrimPrefix(name, prefix)
			keys, args = append(keys, s.valueKey(key), s.objectKey(key)), append(args, key)
		}
		r, err := s.run(ctx, reindexScript, keys, args...)
		if err != nil {
			return 0, err
		}
		entered += r.integer(0)
		if cursor = next; cursor == 0 {
			return entered, nil
		}
	}
}
