package bolt

import (
	"context"
	"errors"
	"slices"

	"go.etcd.io/bbolt"

	"tallyman/internal/crash"
	"tallyman/storage"
	"tallyman/storage/section"
)

// request is one change of the store on its way to the writer.
type request struct {
	apply  func(*transaction) error
	result chan error // buffered, so that the writer never waits
}

// transaction is the state of the store inside one bbolt transaction; it
// becomes the Store's when the transaction is on disk.
type transaction struct {
	tx                                 *bbolt.Tx
	meta, data, log, history, postings *bbolt.Bucket
	cutter                             *section.Cutter
	current, compacted                 int64
	size                               storage.HistorySize
	added                              int // changes of this transaction
}

// Commit implements storage.Backend.
func (s *Store) Commit(ctx context.Context, mutations ...storage.Mutation) (*storage.CommitResult, error) {
	if err := storage.ValidateMutations(mutations); err != nil {
		return nil, err
	}
	var result *storage.CommitResult
	err := s.do(ctx, func(tx *transaction) error {
		var err error
		result, err = s.commit(tx, mutations)
		return err
	})
	if err != nil {
		return nil, err
	}
	return result, nil
}

// Advance implements storage.Backend.
func (s *Store) Advance(ctx context.Context, revision int64) error {
	if err := storage.ValidateAdvance(revision); err != nil {
		return err
	}
	return s.do(ctx, func(tx *transaction) error {
		if revision <= tx.current {
			return nil
		}
		tx.current = revision
		bases := append(slices.Clone(tx.meta.Get(baseKey)), encodeRevision(revision)...)
		return tx.meta.Put(baseKey, bases[max(0, len(bases)-storage.KeptBases*revisionSize):])
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
		err := crash.Guard("store write", func() error {
			return s.db.Update(func(tx *bbolt.Tx) error {
				t, err := s.begin(tx)
				if err != nil {
					return err
				}
				for i, r := range batch {
					if err := r.apply(t); err != nil {
						failed = i
						return err
					}
				}
				if err := s.trimLog(t); err != nil {
					return err
				}
				after = *t
				return t.save()
			})
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

// begin returns the state of the store as the file has it. That may be ahead of memory: a
// transaction whose sync failed may have reached the file.
func (s *Store) begin(tx *bbolt.Tx) (*transaction, error) {
	meta := tx.Bucket(metaBucket)
	t := &transaction{
		tx: tx, meta: meta, data: tx.Bucket(dataBucket), log: tx.Bucket(logBucket),
		history: tx.Bucket(historyBucket), postings: tx.Bucket(termsBucket), cutter: s.cutter,
		current: decodeRevision(meta.Get(revisionKey)), compacted: decodeRevision(meta.Get(compactedKey)),
	}
	s.mu.Lock()
	known := t.current == s.current && t.compacted == s.compacted
	t.size = s.history
	s.mu.Unlock()
	if known {
		return t, nil
	}
	var err error
	t.size, err = historySize(tx)
	return t, err
}

// publish makes a transaction that is on disk visible and wakes Log.
func (s *Store) publish(t transaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.compacted, s.history = t.current, t.compacted, t.size
	close(s.advanced)
	s.advanced = make(chan struct{})
}

func (t *transaction) save() error {
	if err := t.meta.Put(revisionKey, encodeRevision(t.current)); err != nil {
		return err
	}
	if err := t.meta.Put(logBytesKey, encodeRevision(t.size.Bytes)); err != nil {
		return err
	}
	return t.meta.Put(compactedKey, encodeRevision(t.compacted))
}

// commit checks all conditions and then applies the mutations.
func (s *Store) commit(tx *transaction, mutations []storage.Mutation) (*storage.CommitResult, error) {
	records := make([]*record, len(mutations))
	changes := int64(0)
	for i := range mutations {
		m := &mutations[i]
		current, ok := tx.check(m, &records[i])
		if !ok {
			return &storage.CommitResult{Revision: tx.current, Conflict: i, Current: current}, nil
		}
		if m.Changes() && (m.Operation == storage.Put || records[i] != nil) {
			changes++
		}
	}
	result := &storage.CommitResult{Succeeded: true, Revision: tx.current, Revisions: make([]int64, len(mutations))}
	if changes == 0 {
		return result, nil
	}
	next := s.revisionAfter(tx.current)
	end := next + changes - 1
	for i := range mutations {
		m := &mutations[i]
		if !m.Changes() || m.Operation == storage.Delete && records[i] == nil {
			continue
		}
		if err := tx.apply(m, records[i], &logEntry{revision: next, previous: records[i].at(), before: tx.current, commit: end, key: m.Key}); err != nil {
			return nil, err
		}
		result.Revisions[i], tx.current = next, next
		next++
	}
	result.Revision = tx.current
	return result, nil
}

// check reports whether the condition of m holds, and else returns the entry in its way.
// It fills in the record under the key.
func (t *transaction) check(m *storage.Mutation, found **record) (current *storage.Entry, ok bool) {
	if m.Operation == storage.CheckEmpty {
		read := storage.ScanRequest{From: m.From, To: m.To, Term: m.Term, Limit: 1, KeysOnly: true}
		result := &storage.ScanResult{}
		if (&page{req: read, result: result}).fill(t.tx, nil); len(result.Entries) == 0 {
			return nil, true
		}
		return &result.Entries[0], false
	}
	r := decodeRecord(t.data.Get([]byte(m.Key)))
	*found = r
	if m.Expect == storage.AnyRevision || r.at() == m.Expect && (r != nil || m.Operation != storage.Delete) {
		return nil, true
	}
	return r.entry(m.Key, &storage.Read{}, nil), false
}

// apply changes the record under the key of m, and adds e to the log.
func (t *transaction) apply(m *storage.Mutation, before *record, e *logEntry) error {
	var after *record
	var moved []part
	if before != nil {
		e.was = before.refs()
	}
	if e.deleted = m.Operation == storage.Delete; e.deleted {
		moved = before.parts
	} else {
		after, moved = before.put(m, e.revision, t.cutter)
		e.is = after.refs()
	}
	for _, p := range moved {
		e.moved = append(e.moved, ref{p.name, p.revision})
		key := historyKey(m.Key, ref{p.name, p.revision})
		if err := t.history.Put(key, slices.Clone(p.data)); err != nil {
			return err
		}
		t.size.Bytes += int64(len(key) + len(p.data))
	}
	var err error
	if e.added, e.removed, err = t.index(m.Key, before, after); err != nil {
		return err
	}
	if err := t.set(m.Key, after); err != nil {
		return err
	}
	value := e.encode()
	t.size.Entries, t.added = t.size.Entries+1, t.added+1
	t.size.Bytes += int64(revisionSize + len(value))
	return t.log.Put(encodeRevision(e.revision), value)
}

// set makes key hold r, nothing if it is nil.
func (t *transaction) set(key string, r *record) error {
	if r == nil {
		return t.data.Delete([]byte(key))
	}
	return t.data.Put([]byte(key), r.encode())
}

// index keeps the terms bucket in step with a change of key's record.
func (t *transaction) index(key string, before, after *record) (added, removed []storage.Term, err error) {
	added, removed = storage.DiffTerms(before.terms(), after.terms())
	for _, term := range added {
		err = errors.Join(err, t.postings.Put(append(term[:], key...), nil))
	}
	for _, term := range removed {
		err = errors.Join(err, t.postings.Delete(append(term[:], key...)))
	}
	return added, removed, err
}

// Confirm implements storage.Backend: a commit that was made is durable.
func (s *Store) Confirm(context.Context) error { return nil }
