package bolt

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"tallyman/storage"
)

// Get implements storage.Backend.
func (s *Store) Get(ctx context.Context, key string) (*storage.Entry, int64, error) {
	var entry *storage.Entry
	var revision int64
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		entry = decodeEntry(tx.Bucket(dataBucket).Get([]byte(key))).entry(key)
		revision = decodeRevision(tx.Bucket(metaBucket).Get(revisionKey))
		return nil
	})
	return entry, revision, err
}

// Scan implements storage.Backend. For a past revision it reads the range as it
// is now and undoes what the log says happened since, in the same transaction.
func (s *Store) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	result := &storage.ScanResult{Count: -1}
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		result.Revision = decodeRevision(meta.Get(revisionKey))
		past := map[string]stored{}
		if req.Revision != 0 {
			if req.Revision > result.Revision {
				return storage.ErrFuture
			}
			if req.Revision < decodeRevision(meta.Get(compactedKey)) {
				return storage.ErrCompacted
			}
			var err error
			if past, err = versionsAt(tx, req); err != nil {
				return err
			}
			result.Revision = req.Revision
		}
		p := &page{req: req, result: result}
		p.fill(tx, past)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// versionsAt returns, for each key of the range that changed after
// req.Revision, what it held at req.Revision; revision 0 if it did not exist.
func versionsAt(tx *bbolt.Tx, req storage.ScanRequest) (map[string]stored, error) {
	past := map[string]stored{}
	c := tx.Bucket(logBucket).Cursor()
	for k, v := c.Seek(encodeRevision(req.Revision + 1)); k != nil; k, v = c.Next() {
		change, err := viewChange(v)
		if err != nil {
			return nil, err
		}
		key := string(change.key)
		if key < req.From || key >= req.To {
			continue
		}
		if _, ok := past[key]; !ok {
			past[key] = stored{revision: change.prevRevision, value: change.old}
		}
	}
	return past, nil
}

// page collects entries in key order until it is full.
type page struct {
	req    storage.ScanRequest
	result *storage.ScanResult
	count  int64
}

// fill merges the current entries of the range with the past ones, which win.
func (p *page) fill(tx *bbolt.Tx, past map[string]stored) {
	undone := slices.Sorted(maps.Keys(past))
	c := tx.Bucket(dataBucket).Cursor()
	to := []byte(p.req.To)
	for k, v := c.Seek([]byte(p.req.From)); k != nil && bytes.Compare(k, to) < 0; k, v = c.Next() {
		for len(undone) > 0 && undone[0] < string(k) {
			p.addPast(undone[0], past)
			undone = undone[1:]
		}
		if len(undone) > 0 && undone[0] == string(k) {
			p.addPast(undone[0], past)
			undone = undone[1:]
		} else {
			p.add(string(k), *decodeEntry(v))
		}
		if p.done() {
			return
		}
	}
	for _, key := range undone {
		p.addPast(key, past)
	}
	if p.req.Count {
		p.result.Count = p.count
	}
}

// done reports that nothing more needs to be looked at.
func (p *page) done() bool { return p.result.More && !p.req.Count }

func (p *page) addPast(key string, past map[string]stored) {
	if old := past[key]; old.revision != 0 {
		p.add(key, old)
	}
}

func (p *page) add(key string, e stored) {
	p.count++
	if p.req.Limit > 0 && len(p.result.Entries) == p.req.Limit {
		p.result.More = true
		return
	}
	entry := storage.Entry{Key: key, Revision: e.revision}
	if !p.req.KeysOnly {
		entry.Value = bytes.Clone(e.value)
	}
	p.result.Entries = append(p.result.Entries, entry)
}

// Stats implements storage.Backend. It goes over all entries.
func (s *Store) Stats(ctx context.Context) (storage.BackendStats, error) {
	var stats storage.BackendStats
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		stats.Compacted, stats.Current = decodeRevision(meta.Get(compactedKey)), decodeRevision(meta.Get(revisionKey))
		stats.LogEntries = int64(tx.Bucket(logBucket).Stats().KeyN)
		return tx.Bucket(dataBucket).ForEach(func(_, v []byte) error {
			stats.Objects++
			stats.Bytes += int64(len(v) - 8)
			stats.StoredBytes += int64(len(v))
			return nil
		})
	})
	return stats, err
}
