package redis

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tallyman/storage"
)

// indexBatch bounds how many members of the index are read in one step.
const indexBatch = 1000

// evictionQuiet is for how many seconds after an eviction was found others are not
// logged: there may be very many.
const evictionQuiet = 5

// errMalformed is returned for a member of the index that is none.
var errMalformed = errors.New("value is malformed")

// errMoved is returned by a scan of the current state that changes overtook.
var errMoved = errors.New("the store changed faster than it could be read")

// Scan implements storage.Backend. For a past revision it reads the present index and undoes
// the later changes in the log.
func (s *Store) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	const tries = 5
	for i := 1; ; i++ {
		result, next, err := s.scan(ctx, req)
		if err == nil && len(result.Entries) == 0 && result.More { // all that was there was evicted
			req.From, i = next, 0
			continue
		}
		moved := errors.Is(err, errMoved)
		switch {
		case moved && req.Revision != 0:
			return nil, storage.ErrCompacted
		case req.Revision != 0 || i == tries || (!moved && !errors.Is(err, storage.ErrCompacted)):
			return result, err
		}
	}
}

// scan reads one page, which is empty if all its entries were evicted, and returns where
// the next one begins.
func (s *Store) scan(ctx context.Context, req storage.ScanRequest) (_ *storage.ScanResult, next string, err error) {
	limit := req.PageSize()
	result := &storage.ScanResult{Count: -1, Revision: req.Revision}
	p := pageRequest{from: req.From, to: req.To, count: req.Count}
	if req.Term != "" {
		p.term = hashed(req.Term)
	}
	for {
		p.size = min(indexBatch, limit-len(result.Entries)+1)
		p.revision = result.Revision
		page, err := s.page(ctx, p)
		if err != nil {
			return nil, "", err
		}
		result.Revision = page.shows
		if err := s.undo(ctx, page, p.term); err != nil {
			return nil, "", err
		}
		if p.count {
			result.Count, p.count = page.count, false
		}
		result.Entries = append(result.Entries, page.entries...)
		if len(result.Entries) > limit {
			result.Entries, result.More = result.Entries[:limit], true
		}
		if result.More || page.last {
			break
		}
		p.from = page.end
	}
	if req.KeysOnly {
		return result, "", nil
	}
	next, err = s.fill(ctx, result, &req.Read)
	return result, next, err
}

// pageRequest asks for a part of the index: of the keys in [from, to), or of those that
// carry a term, at a revision (0 for now).
type pageRequest struct {
	from, to, term string
	size           int
	count          bool
	revision       int64
}

// page is a part of the index.
type page struct {
	from, end, to string // it covers the keys in [from, end), of a range that ends with to
	last          bool   // end is to
	entries       []storage.Entry
	count         int64 // of the range
	revision      int64 // that it was read at
	shows         int64 // that it is to show
}

// page reads a part of the index, having made sure that history reaches back to
// the revision, if that is not 0.
func (s *Store) page(ctx context.Context, req pageRequest) (*page, error) {
	counting := "0"
	if req.count {
		counting = "1"
	}
	r, err := s.read(ctx, pageScript, []string{s.meta, s.index, s.log, s.terms, s.indexes}, formatAny,
		"["+bound(req.from), "("+bound(req.to), req.size, counting, digits(req.revision), req.term, "["+req.term+req.from, "("+req.term+req.to)
	if err != nil {
		return nil, err
	}
	members := r.list(2)
	p := &page{
		from: req.from, end: req.to, to: req.to, last: true, entries: make([]storage.Entry, len(members)), count: r.integer(3),
		revision: r.integer(0), shows: r.integer(1),
	}
	if p.shows == 0 {
		p.shows = p.revision
	}
	for i := range members {
		key, revision, ok := splitMember(members.text(i))
		if !ok {
			return nil, fmt.Errorf("redis: %s: %w", s.index, errMalformed)
		}
		p.entries[i] = storage.Entry{Key: key, Revision: revision}
	}
	if r.integer(4) == int64(req.size) {
		p.last, p.end = false, r.text(5)+"\x00"
	}
	s.observe(p.revision)
	return p, nil
}

// undo takes p back to the revision that it is to show.
func (s *Store) undo(ctx context.Context, p *page, term string) error {
	if p.shows == p.revision {
		return nil
	}
	past, err := s.history.between(ctx, p.shows, p.revision, p.from, p.to, term)
	if err != nil {
		return err
	}
	for _, u := range past {
		if existed, exists := u.first.previous != 0, !u.last.deleted; p.count >= 0 && existed != exists {
			if existed {
				p.count++
			} else {
				p.count--
			}
		}
	}
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(past)), func(key string) bool { return key >= p.end })
	if len(keys) > 0 {
		p.entries = merge(p.entries, keys, past, term != "")
	}
	return nil
}

// merge returns entries with some keys as they were before.
func merge(entries []storage.Entry, keys []string, past map[string]*undo, byTerm bool) []storage.Entry {
	var merged []storage.Entry
	add := func(key string, listed bool) {
		u := past[key]
		if byTerm && u.mentioned {
			listed = u.had
		}
		if u.first.previous != 0 && (!byTerm || listed) {
			merged = append(merged, storage.Entry{Key: key, Revision: u.first.previous})
		}
	}
	for _, e := range entries {
		for len(keys) > 0 && keys[0] < e.Key {
			add(keys[0], false)
			keys = keys[1:]
		}
		if len(keys) > 0 && keys[0] == e.Key {
			add(e.Key, true)
			keys = keys[1:]
			continue
		}
		merged = append(merged, e)
	}
	for _, key := range keys {
		add(key, false)
	}
	return merged
}

// fill reads the values of a result, which ends where they make a page. It returns where
// the next page begins.
func (s *Store) fill(ctx context.Context, result *storage.ScanResult, read *storage.Read) (next string, err error) {
	refs := make([]ref, len(result.Entries))
	for i, e := range result.Entries {
		refs[i] = ref{key: e.Key, revision: e.Revision}
	}
	loaded, err := s.load(ctx, refs, 1, read)
	if err != nil {
		return "", err
	}
	result.More = result.More || loaded < len(refs)
	entries := result.Entries[:0]
	for _, r := range refs[:loaded] {
		next = r.key + "\x00"
		if r.entry == nil {
			evicted, err := s.forget(ctx, r.key, r.revision)
			if err != nil {
				return "", err
			}
			if !evicted {
				return "", errMoved
			}
			continue
		}
		entries = append(entries, *r.entry)
	}
	result.Entries = entries
	return next, nil
}

// forget takes an object whose value is gone off the index, if it is still there.
func (s *Store) forget(ctx context.Context, key string, revision int64) (bool, error) {
	r, err := s.run(ctx, forgetScript, []string{s.meta, s.index, s.log, s.valueKey(key), s.objectKey(key)}, formatAny, key, digits(revision))
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

// bound turns a key that bounds a range of keys into the one that bounds their
// members of the index. A final NUL stands for "right after this key".
func bound(key string) string {
	if after, ok := strings.CutSuffix(key, "\x00"); ok {
		return after + "\x00\xff"
	}
	return key + "\x00"
}

// splitMember takes a member of the index apart.
func splitMember(member string) (key string, revision int64, ok bool) {
	key, digits, ok := strings.Cut(member, "\x00")
	if !ok {
		return "", 0, false
	}
	revision, err := strconv.ParseInt(digits, 10, 64)
	return key, revision, err == nil
}

// Stats implements storage.Backend. Its cost does not depend on the number of objects.
func (s *Store) Stats(ctx context.Context) (storage.BackendStats, error) {
	var stats storage.BackendStats
	window, err := s.Window(ctx)
	if err != nil {
		return stats, err
	}
	stats.Window = window
	err = s.do(ctx, func(ctx context.Context) error {
		sizes, err := s.client.HMGet(ctx, s.meta, "bytes", "rawbytes", "logbytes").Result()
		if err != nil {
			return err
		}
		stats.StoredBytes, stats.Bytes, stats.LogBytes = number(sizes[0]), number(sizes[1]), number(sizes[2])
		if stats.Terms, err = s.client.ZCard(ctx, s.terms).Result(); err != nil {
			return err
		}
		if stats.Objects, err = s.client.ZCard(ctx, s.index).Result(); err != nil {
			return err
		}
		stats.LogEntries, err = s.client.XLen(ctx, s.log).Result()
		return err
	})
	return stats, err
}

func number(v any) int64 {
	text, _ := v.(string)
	n, _ := strconv.ParseInt(text, 10, 64) // a hash field that the scripts keep
	return n
}
