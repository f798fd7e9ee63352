package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"tallyman/storage"
)

// indexBatch bounds how many members of the index are read in one step.
const indexBatch = 1000

// evictionQuiet is for how many seconds after an eviction was found others are not
// logged: there may be very many.
const evictionQuiet = 5

// errMoved is returned by a scan of the current state that changes overtook.
var errMoved = errors.New("the store changed faster than it could be read")

// Scan implements storage.Backend. For a past revision it reads the index as it
// is now and undoes what the log says happened since.
func (s *Store) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	const tries = 5
	for i := 1; ; i++ {
		result, err := s.scan(ctx, req)
		moved := errors.Is(err, errMoved)
		switch {
		case moved && req.Revision != 0:
			return nil, storage.ErrCompacted
		case req.Revision != 0 || i == tries || (!moved && !errors.Is(err, storage.ErrCompacted)):
			return result, err
		}
	}
}

func (s *Store) scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	result := &storage.ScanResult{Count: -1, Revision: req.Revision}
	from, wantCount := req.From, req.Count
	for {
		size := indexBatch
		if req.Limit > 0 {
			size = min(size, req.Limit-len(result.Entries)+1)
		}
		page, err := s.page(ctx, from, req.To, size, wantCount, result.Revision)
		if err != nil {
			return nil, err
		}
		if result.Revision == 0 {
			result.Revision = page.revision
		}
		if err := s.undo(ctx, page, result.Revision); err != nil {
			return nil, err
		}
		if wantCount {
			result.Count, wantCount = page.count, false
		}
		result.Entries = append(result.Entries, page.entries...)
		if req.Limit > 0 && len(result.Entries) > req.Limit {
			result.Entries, result.More = result.Entries[:req.Limit], true
		}
		if result.More || page.last {
			break
		}
		from = page.end
	}
	if req.KeysOnly {
		return result, nil
	}
	return result, s.fill(ctx, result)
}

// page is a part of the index.
type page struct {
	from, end, to string // it covers the keys from from to before end, of a range that ends with to
	last          bool   // end is to
	entries       []storage.Entry
	count         int64 // of the range
	revision      int64 // that it was read at
}

// page reads a part of the index, having made sure that history reaches back to
// revision, if that is not 0.
func (s *Store) page(ctx context.Context, from, to string, size int, count bool, revision int64) (*page, error) {
	counting := "0"
	if count {
		counting = "1"
	}
	r, err := s.read(ctx, pageScript, []string{s.meta, s.index, s.log}, formatVersion,
		"["+bound(from), "("+bound(to), size, counting, digits(revision))
	if err != nil {
		return nil, err
	}
	members := r.list(1)
	p := &page{from: from, end: to, to: to, last: true, entries: make([]storage.Entry, len(members)), count: r.integer(2), revision: r.integer(0)}
	for i := range members {
		key, revision, ok := splitMember(members.text(i))
		if !ok {
			return nil, fmt.Errorf("redis: %s: %w", s.index, errMalformed)
		}
		p.entries[i] = storage.Entry{Key: key, Revision: revision}
	}
	if len(members) == size {
		p.last, p.end = false, p.entries[size-1].Key+"\x00"
	}
	s.observe(p.revision)
	return p, nil
}

// undo takes p back to revision.
func (s *Store) undo(ctx context.Context, p *page, revision int64) error {
	if revision == p.revision {
		return nil
	}
	first, last, err := s.history.between(ctx, revision, p.revision, p.from, p.to)
	if err != nil {
		return err
	}
	for key, e := range first {
		if existed, exists := e.previous != 0, !last[key].deleted; p.count >= 0 && existed != exists {
			if existed {
				p.count++
			} else {
				p.count--
			}
		}
	}
	undone := slices.DeleteFunc(slices.Sorted(maps.Keys(first)), func(key string) bool { return key >= p.end })
	if len(undone) == 0 {
		return nil
	}
	p.entries = merge(p.entries, undone, first)
	return nil
}

// merge returns entries with the keys of undone as they were before first.
func merge(entries []storage.Entry, undone []string, first map[string]logEntry) []storage.Entry {
	var merged []storage.Entry
	add := func(key string) {
		if previous := first[key].previous; previous != 0 {
			merged = append(merged, storage.Entry{Key: key, Revision: previous})
		}
	}
	for _, e := range entries {
		for len(undone) > 0 && undone[0] < e.Key {
			add(undone[0])
			undone = undone[1:]
		}
		if len(undone) > 0 && undone[0] == e.Key {
			add(e.Key)
			undone = undone[1:]
			continue
		}
		merged = append(merged, e)
	}
	for _, key := range undone {
		add(key)
	}
	return merged
}

// fill reads the values of a result.
func (s *Store) fill(ctx context.Context, result *storage.ScanResult) error {
	refs := make([]ref, len(result.Entries))
	for i, e := range result.Entries {
		refs[i] = ref{key: e.Key, revision: e.Revision}
	}
	if err := s.load(ctx, refs); err != nil {
		return err
	}
	entries := result.Entries[:0]
	for i, e := range result.Entries {
		if e.Value = refs[i].value; e.Value == nil {
			evicted, err := s.forget(ctx, e.Key, e.Revision)
			if err != nil {
				return err
			}
			if !evicted {
				return errMoved
			}
			continue
		}
		entries = append(entries, e)
	}
	result.Entries = entries
	return nil
}

// forget takes an object whose value is gone off the index, if it is still there.
func (s *Store) forget(ctx context.Context, key string, revision int64) (bool, error) {
	r, err := s.run(ctx, forgetScript, []string{s.meta, s.index, s.log, s.objectKey(key)}, formatVersion, key, digits(revision))
	if err != nil || r.integer(0) == 0 {
		return false, err
	}
	evictedTotal.Inc()
	reason := fmt.Sprintf("Redis evicted %s: set maxmemory-policy to noeviction", key)
	if last := s.evicted.Swap(time.Now().Unix()); time.Now().Unix()-last > evictionQuiet {
		s.lost(reason)
	} else {
		go s.opts.OnLoss(reason)
	}
	return true, nil
}
