package bolt

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"tallyman/storage"
	"tallyman/storage/section"
)

// Get implements storage.Backend.
func (s *Store) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	result := &storage.GetResult{Entries: make([]*storage.Entry, len(req.Keys))}
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		result.Revision = decodeRevision(tx.Bucket(metaBucket).Get(revisionKey))
		data := tx.Bucket(dataBucket)
		for i, key := range req.Keys {
			result.Entries[i] = decodeRecord(data.Get([]byte(key))).entry(key, &req.Read, nil)
		}
		return nil
	})
	return result, err
}

// Scan implements storage.Backend. For a past revision it reads the present range and undoes
// the later changes in the log, in the same transaction.
func (s *Store) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	result := &storage.ScanResult{Count: -1}
	counted := false
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		result.Revision = decodeRevision(tx.Bucket(metaBucket).Get(revisionKey))
		if req.Term != "" {
			if ok, err := indexed(tx, req.Revision); err != nil || !ok {
				return errOr(err, storage.ErrNoIndex)
			}
		}
		past := map[string]*undo{}
		if req.Revision != 0 {
			end, err := readable(tx, req.Revision, result.Revision)
			if err != nil {
				return err
			}
			if past, err = undone(tx, &req, end); err != nil {
				return err
			}
			result.Revision = end
		}
		p := &page{req: req, result: result, memory: storage.MemoryOf(ctx)}
		if req.Count {
			result.Count, counted = s.countOf(rest{result.Revision, req.From, req.To})
			p.req.Count = !counted
		}
		p.fill(tx, past)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if n := len(result.Entries); req.Count && result.More {
		s.keepCount(rest{result.Revision, result.Entries[n-1].Key + "\x00", req.To}, result.Count-int64(n))
	}
	return result, nil
}

// rest identifies the remaining part of a list at a revision.
type rest struct {
	revision int64
	from, to string
}

// keptCounts is the number of lists whose remaining count is cached. Only the first page
// of a list counts entries.
const keptCounts = 1000

func (s *Store) countOf(r rest) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.counts.Get(r); ok {
		return n, true
	}
	return -1, false
}

func (s *Store) keepCount(r rest, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Add(r, n)
}

func errOr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// readable returns the end of the commit that revision is in, or the error that says
// why the state at revision cannot be told.
func readable(tx *bbolt.Tx, revision, current int64) (int64, error) {
	switch {
	case revision > current:
		return 0, storage.ErrFuture
	case !known(tx, revision):
		return 0, storage.ErrCompacted
	}
	return insideCommit(tx.Bucket(logBucket), revision)
}

// undo sums up the changes of a key after some revision: the first of them, and
// whether the key had the term of the scan before the first that gave or took it.
type undo struct {
	first     *logEntry
	mentioned bool
	had       bool
}

// undone sums up the changes of the keys of the range after revision.
func undone(tx *bbolt.Tx, req *storage.ScanRequest, revision int64) (map[string]*undo, error) {
	past, term := map[string]*undo{}, storage.HashTerm(req.Term)
	c := tx.Bucket(logBucket).Cursor()
	for k, v := c.Seek(encodeRevision(revision + 1)); k != nil; k, v = c.Next() {
		e, err := readLogEntry(k, v)
		if err != nil {
			return nil, err
		}
		if e.key < req.From || e.key >= req.To {
			continue
		}
		u := past[e.key]
		if u == nil {
			u = &undo{first: e}
			past[e.key] = u
		}
		if removed := storage.HasTerm(e.removed, term); !u.mentioned && (removed || storage.HasTerm(e.added, term)) {
			u.mentioned, u.had = true, removed
		}
	}
	return past, nil
}

// page collects entries in key order until it is full.
type page struct {
	req    storage.ScanRequest
	result *storage.ScanResult
	count  int64
	size   int // of the sections of result
	memory *storage.Memory
}

// fill merges the current entries of the range with the past ones, which win.
func (p *page) fill(tx *bbolt.Tx, past map[string]*undo) {
	keys := slices.Sorted(maps.Keys(past))
	next := p.keys(tx)
	data := tx.Bucket(dataBucket)
	for key, stored, ok := next(); ok; key, stored, ok = next() {
		for len(keys) > 0 && keys[0] < key {
			p.addPast(tx, keys[0], past[keys[0]], false)
			keys = keys[1:]
		}
		if len(keys) > 0 && keys[0] == key {
			p.addPast(tx, key, past[key], true)
			keys = keys[1:]
		} else {
			// A damaged index may have keys that are not there.
			if stored == nil && !p.full() {
				stored = data.Get([]byte(key))
			}
			if stored != nil || p.full() {
				p.addStored(key, stored)
			}
		}
		if p.done() {
			return
		}
	}
	for _, key := range keys {
		p.addPast(tx, key, past[key], false)
	}
	if p.req.Count {
		p.result.Count = p.count
	}
}

// keys returns an iterator over the keys of the range that are there now, with their records, or over
// those with the term, without.
func (p *page) keys(tx *bbolt.Tx) func() (key string, stored []byte, ok bool) {
	bucket, prefix := dataBucket, []byte{}
	if p.req.Term != "" {
		term := storage.HashTerm(p.req.Term)
		bucket, prefix = termsBucket, term[:]
	}
	c := tx.Bucket(bucket).Cursor()
	to := append(slices.Clone(prefix), p.req.To...)
	started := false
	return func() (string, []byte, bool) {
		var k, v []byte
		if started {
			k, v = c.Next()
		} else {
			started = true
			k, v = c.Seek(append(slices.Clone(prefix), p.req.From...))
		}
		if k == nil || bytes.Compare(k, to) >= 0 {
			return "", nil, false
		}
		if p.req.Term != "" {
			v = nil
		}
		return string(k[len(prefix):]), v, true
	}
}

// full reports that the page has as much as it may.
func (p *page) full() bool {
	return len(p.result.Entries) == p.req.PageSize() || p.size >= storage.MaxPageBytes
}

// done reports that nothing more needs to be looked at.
func (p *page) done() bool { return p.result.More && !p.req.Count }

// addPast adds the value of key before u, if it belongs to the page. listed reports that
// the key belongs to the range now.
func (p *page) addPast(tx *bbolt.Tx, key string, u *undo, listed bool) {
	if u.first.previous == 0 || p.req.Term != "" && (u.mentioned && !u.had || !u.mentioned && !listed) {
		return
	}
	read := p.req.Read
	if p.req.KeysOnly || p.full() {
		read = storage.Read{Sections: []string{}}
	}
	p.add(key, u.first.recordBefore(tx, &read))
}

// addStored is add for a record that is decoded only if the page has room for it.
func (p *page) addStored(key string, stored []byte) {
	var r *record
	if !p.full() {
		r = decodeRecord(stored)
	}
	p.add(key, r)
}

func (p *page) add(key string, r *record) {
	p.count++
	if p.full() {
		p.result.More = true
		return
	}
	if p.req.KeysOnly {
		p.result.Entries = append(p.result.Entries, storage.Entry{Key: key, Revision: r.at()})
		return
	}
	e := r.entry(key, &p.req.Read, p.memory)
	p.size += e.Value.Size()
	p.result.Entries = append(p.result.Entries, *e)
}

// HistoryBytes returns the size of the history, as HistoryBounds.MaxBytes bounds it.
func (s *Store) HistoryBytes(ctx context.Context) (n int64, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		n = decodeRevision(tx.Bucket(metaBucket).Get(logBytesKey))
		return nil
	})
	return n, err
}

// Stats implements storage.Backend. It goes over all entries.
func (s *Store) Stats(ctx context.Context) (storage.BackendStats, error) {
	var stats storage.BackendStats
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		stats.Compacted, stats.Current = decodeRevision(meta.Get(compactedKey)), decodeRevision(meta.Get(revisionKey))
		stats.LogEntries = int64(tx.Bucket(logBucket).Stats().KeyN)
		stats.LogBytes = decodeRevision(meta.Get(logBytesKey))
		stats.Terms = int64(tx.Bucket(termsBucket).Stats().KeyN)
		return tx.Bucket(dataBucket).ForEach(func(_, v []byte) error {
			stats.Objects++
			stats.StoredBytes += int64(len(v))
			for _, p := range decodeRecord(v).parts {
				if p.name[:1] != groupPrefix {
					stats.Bytes += int64(section.Size(p.data))
				}
			}
			return nil
		})
	})
	return stats, err
}
