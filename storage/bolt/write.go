package bolt

import (
	"context"
	"errors"
	"slices"

	"go.etcd.io/bbolt"

	"tallyman/storage"
)

// request is one Commit or Compact on its way to the writer.
type request struct {
	apply  func(*transaction) error
	result chan error // buffered, so that the writer never waits
}

// transaction is the state of the store inside one bbolt transaction; it
// becomes the Store's when the transaction is on disk.
type transaction struct {
	meta, data, log    *bbolt.Bucket
	current, compacted int64
	logEntries         int
}

// Commit implements storage.Backend.
func (s *Store) Commit(ctx context.Context, m storage.Mutation) (*storage.CommitResult, error) {
	if m.Key == "" || (m.Value == nil && !m.Delete) {
		return nil, errors.New("bolt: a commit needs a key and a value")
	}
	var result *storage.CommitResult
	err := s.do(ctx, func(tx *transaction) error {
		var err error
		result, err = s.commit(tx, m)
		return err
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// Compact implements storage.Backend.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	return s.do(ctx, func(tx *transaction) error {
		if revision > tx.current {
			return storage.ErrFuture
		}
		return tx.trim(func(r int64, _ int) bool { return r <= revision }, revision)
	})
}

// Advance implements storage.Backend.
func (s *Store) Advance(ctx context.Context, revision int64) error {
	return s.do(ctx, func(tx *transaction) error {
		if revision <= tx.current {
			return nil
		}
		tx.current = revision
		return tx.meta.Put(baseKey, encodeRevision(revision))
	})
}

// do hands fn to the writer and waits until its transaction is on disk. When
// ctx ends first the outcome is unknown to the caller, as with any database.
func (s *Store) do(ctx context.Context, fn func(*transaction) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	r := &request{apply: fn, result: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.done:
		return storage.ErrClosed
	}
	return <-r.result
}

// write is the only goroutine that writes: it puts all commits that are waiting
// into one transaction, so that they share its fsync.
func (s *Store) write() {
	defer close(s.stopped)
	for {
		select {
		case r := <-s.requests:
			s.flush(s.gather(r))
		case <-s.done:
			return
		}
	}
}

func (s *Store) gather(first *request) []*request {
	batch := []*request{first}
	for len(batch) < maxBatch {
		select {
		case r := <-s.requests:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// flush applies a batch. A request that fails by itself fails alone: the rest
// is applied again without it.
func (s *Store) flush(batch []*request) {
	for len(batch) > 0 {
		failed := -1
		var after transaction
		err := s.db.Update(func(tx *bbolt.Tx) error {
			t := s.begin(tx)
			for i, r := range batch {
				if err := r.apply(t); err != nil {
					failed = i
					return err
				}
			}
			after = *t
			return t.save()
		})
		if failed >= 0 {
			batch[failed].result <- err
			batch = slices.Delete(batch, failed, failed+1)
			continue
		}
		if err == nil {
			s.publish(after)
		}
		for _, r := range batch {
			r.result <- err
		}
		return
	}
}

func (s *Store) begin(tx *bbolt.Tx) *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &transaction{
		meta:       tx.Bucket(metaBucket),
		data:       tx.Bucket(dataBucket),
		log:        tx.Bucket(logBucket),
		current:    s.current,
		compacted:  s.compacted,
		logEntries: s.logEntries,
	}
}

// publish makes a transaction that is on disk visible and wakes Log.
func (s *Store) publish(t transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.compacted, s.logEntries = t.current, t.compacted, t.logEntries
	close(s.advanced)
	s.advanced = make(chan struct{})
}

func (s *Store) commit(tx *transaction, m storage.Mutation) (*storage.CommitResult, error) {
	prev := decodeEntry(tx.data.Get([]byte(m.Key)))
	change := storage.Change{Key: m.Key}
	if prev != nil {
		change.PrevValue, change.PrevRevision = prev.value, prev.revision
	}
	if change.PrevRevision != m.Expect || (m.Delete && prev == nil) {
		return &storage.CommitResult{Current: prev.entry(m.Key), Revision: tx.current}, nil
	}
	change.Revision = s.revisionAfter(tx.current)
	var err error
	if m.Delete {
		err = tx.data.Delete([]byte(m.Key))
	} else {
		change.Value = m.Value
		err = tx.data.Put([]byte(m.Key), encodeEntry(change.Revision, m.Value))
	}
	if err != nil {
		return nil, err
	}
	if err := tx.log.Put(encodeRevision(change.Revision), encodeChange(&change)); err != nil {
		return nil, err
	}
	tx.current = change.Revision
	tx.logEntries++
	return &storage.CommitResult{Succeeded: true, Revision: change.Revision}, s.trimLog(tx)
}

// trimLog drops what has left the window. The newest change always stays.
func (s *Store) trimLog(tx *transaction) error {
	oldest := s.opts.Now().Add(-s.opts.LogMaxAge).UnixMicro()
	return tx.trim(func(r int64, left int) bool {
		return r != tx.current && (left > s.opts.LogMaxEntries || r < oldest)
	}, 0)
}

// trim deletes changes from the old end of the log for as long as drop says so,
// and moves the start of the window at least to floor. drop gets a revision and
// how many changes the log holds.
func (t *transaction) trim(drop func(revision int64, left int) bool, floor int64) error {
	cursor := t.log.Cursor()
	for k, _ := cursor.First(); k != nil; k, _ = cursor.First() {
		revision := decodeRevision(k)
		if !drop(revision, t.logEntries) {
			break
		}
		if err := cursor.Delete(); err != nil {
			return err
		}
		t.logEntries--
		t.compacted = max(t.compacted, revision)
	}
	t.compacted = max(t.compacted, floor)
	return nil
}

func (t *transaction) save() error {
	if err := t.meta.Put(revisionKey, encodeRevision(t.current)); err != nil {
		return err
	}
	return t.meta.Put(compactedKey, encodeRevision(t.compacted))
}

// Log implements storage.Backend.
func (s *Store) Log(ctx context.Context, revision int64, limit int) ([]storage.Change, error) {
	for {
		s.mu.Lock()
		advanced := s.advanced
		s.mu.Unlock()
		changes, err := s.readLog(ctx, revision, limit)
		if err != nil || len(changes) > 0 {
			return changes, err
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.done:
			return nil, storage.ErrClosed
		}
	}
}

func (s *Store) readLog(ctx context.Context, revision int64, limit int) ([]storage.Change, error) {
	var changes []storage.Change
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		if !known(tx, revision) {
			return storage.ErrCompacted
		}
		c := tx.Bucket(logBucket).Cursor()
		for k, v := c.Seek(encodeRevision(revision + 1)); k != nil; k, v = c.Next() {
			if limit > 0 && len(changes) == limit {
				return nil
			}
			change, err := decodeChange(decodeRevision(k), v)
			if err != nil {
				return err
			}
			changes = append(changes, change)
		}
		return nil
	})
	return changes, err
}

// known reports whether the log can be read from revision: it has an entry for
// it, or starts after it, or no commit made it. A revision of another history
// (this file is a restored copy, say) is not known.
func known(tx *bbolt.Tx, revision int64) bool {
	meta := tx.Bucket(metaBucket)
	compacted := decodeRevision(meta.Get(compactedKey))
	switch revision {
	case compacted, decodeRevision(meta.Get(revisionKey)):
		return true
	case decodeRevision(meta.Get(baseKey)):
		return revision > compacted
	}
	return revision > compacted && tx.Bucket(logBucket).Get(encodeRevision(revision)) != nil
}
