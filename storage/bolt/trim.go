package bolt

import (
	"context"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"tallyman/storage"
)

const (
	// trimBatch is the number of entries that one transaction drops. It finishes a commit,
	// and drops up to twice as many entries as it adds.
	trimBatch = 256
	// trimInterval is the interval of trimming without commits.
	trimInterval = time.Second
	revisionSize = 8
)

// keepTrimming trims the history while there are no commits.
func (s *Store) keepTrimming() {
	ticker := time.NewTicker(trimInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-s.done:
			return
		}
		for s.exceeded() {
			// The writer trims in each transaction.
			if err := s.do(context.Background(), func(*transaction) error { return nil }); err != nil {
				if s.usable(context.Background()) == nil {
					slog.Error("bolt: history not trimmed", "err", err)
				}
				break
			}
		}
	}
}

// exceeded reports whether there is an entry to drop.
func (s *Store) exceeded() bool {
	held := s.Oldest()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history.Entries > 0 && s.history.Last != s.current && s.opts.History.Exceeds(s.history, held, s.opts.Now())
}

// trimLog drops entries that have left the window. The newest commit always stays.
func (s *Store) trimLog(tx *transaction) error {
	held, now := s.Oldest(), s.opts.Now()
	_, err := tx.trim(max(trimBatch, 2*tx.added), func(oldest storage.HistorySize) bool {
		return oldest.Last != tx.current && s.opts.History.Exceeds(oldest, held, now)
	})
	return err
}

// trim drops the oldest commits for which drop returns true, about limit entries. more is
// true if it stopped at limit.
func (t *transaction) trim(limit int, drop func(oldest storage.HistorySize) bool) (more bool, err error) {
	var dropped [][]byte
	size, end := t.size, int64(0)
	cursor := t.log.Cursor()
	for k, v := cursor.First(); k != nil; k, v = cursor.Next() {
		e, _ := decodeLogEntry(k, v) // one that is damaged goes as a commit of its own
		if e.revision > end {        // the first of its commit
			size.First, size.Last = e.revision, e.commit
			if !drop(size) {
				break
			}
			if len(dropped) >= limit {
				more = true
				break
			}
			end = e.commit
		}
		dropped = append(dropped, append([]byte{}, k...))
		moved, err := t.dropMoved(e)
		if err != nil {
			return false, err
		}
		size.Entries, size.Bytes = size.Entries-1, size.Bytes-int64(len(k)+len(v))-moved
	}
	for _, k := range dropped {
		if err := t.log.Delete(k); err != nil {
			return false, err
		}
	}
	t.size = size
	t.compacted = max(t.compacted, end)
	return more, nil
}

// dropMoved drops the parts that an entry has moved, and returns their size.
func (t *transaction) dropMoved(e *logEntry) (size int64, err error) {
	for _, moved := range e.moved {
		key := historyKey(e.key, moved)
		size += int64(len(key) + len(t.history.Get(key)))
		if err := t.history.Delete(key); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// historySize returns the size of the history, and measures it in a file without a stored
// size.
func historySize(tx *bbolt.Tx) (storage.HistorySize, error) {
	log := tx.Bucket(logBucket)
	size := storage.HistorySize{Entries: int64(log.Stats().KeyN)}
	if k, v := log.Cursor().First(); k != nil {
		e, _ := decodeLogEntry(k, v) // as in trim
		size.First, size.Last = e.revision, e.commit
	}
	if stored := tx.Bucket(metaBucket).Get(logBytesKey); stored != nil {
		size.Bytes = decodeRevision(stored)
		return size, nil
	}
	for _, bucket := range [][]byte{logBucket, historyBucket} {
		err := tx.Bucket(bucket).ForEach(func(k, v []byte) error {
			size.Bytes += int64(len(k) + len(v))
			return nil
		})
		if err != nil {
			return size, err
		}
	}
	return size, nil
}

// Compact implements storage.Backend.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	for more := true; more; {
		err := s.do(ctx, func(tx *transaction) (err error) {
			if revision > tx.current {
				return storage.ErrFuture
			}
			more, err = tx.trim(trimBatch, func(oldest storage.HistorySize) bool { return oldest.Last <= revision })
			if err != nil || more {
				return err
			}
			if inside, err := insideCommit(tx.log, revision); err != nil || inside != revision {
				return err
			}
			tx.compacted = max(tx.compacted, revision)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
