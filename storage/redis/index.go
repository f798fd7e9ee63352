package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"tallyman/storage"
	"tallyman/storage/section"
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
	if s.Format() == format1 {
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
		args = appendParts(args, s.parts(&e.Section))
	}
	r, err := s.run(ctx, fillScript, keys, args...)
	if err != nil {
		return false, err
	}
	for i := range req.Entries { // it is cached without these terms, and without the section
		s.cache.Drop(req.Entries[i].Revision)
	}
	return r.integer(0) == 1, nil
}

// parts returns the parts of a section that is added, none if it has no data.
func (s *Store) parts(added *storage.Section) []section.Part {
	if added.Data == nil {
		return nil
	}
	return s.cutterOf(s.Format()).Parts(added.Name, added.Data, section.Append)
}

func appendParts(args []any, parts []section.Part) []any {
	args = append(args, len(parts))
	for _, p := range parts {
		args = append(args, p.Name, p.Data)
	}
	return args
}

// storedState is an IndexState whose revision the script fills in if it is 0.
type storedState struct {
	storage.IndexState
	Since int64 `json:"since"`
}

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
	lock, err := s.Lock(ctx, "repair")
	if err != nil {
		return err
	}
	defer lock.Unlock()
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
