package bolt

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"tallyman/storage"
	"tallyman/storage/section"
)

// logEntry is a value of the log bucket: the effect of a change on one key. The parts that
// it replaced are in the history bucket.
type logEntry struct {
	revision, previous int64
	before, commit     int64
	deleted            bool
	key                string
	// was and is name the parts of the key's record before and after the change, and
	// moved those that the change moved to the history bucket.
	was, is, moved []ref
	// added and removed are the terms that the change gave and took.
	added, removed []storage.Term
	// inline has the records before and after, if format 1 has written the entry.
	inline *[2]*record
}

// A log entry starts with logMark. One of format 1 starts with the previous revision
// and a byte that is 0 or 1.
var logMark = []byte{0, 2}

func (e *logEntry) encode() []byte {
	b := append([]byte{}, logMark...)
	deleted := byte(0)
	if e.deleted {
		deleted = 1
	}
	b = append(b, deleted)
	for _, n := range []int64{e.previous, e.before, e.commit} {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = appendBytes(b, []byte(e.key))
	for _, refs := range [][]ref{e.was, e.is, e.moved} {
		b = binary.AppendUvarint(b, uint64(len(refs)))
		for _, r := range refs {
			b = binary.AppendUvarint(appendBytes(b, []byte(r.name)), uint64(r.revision))
		}
	}
	return appendBytes(appendBytes(b, storage.EncodeTerms(e.added)), storage.EncodeTerms(e.removed))
}

func decodeLogEntry(k, b []byte) (*logEntry, error) {
	e := &logEntry{revision: decodeRevision(k)}
	e.commit = e.revision
	d := &decoder{rest: b}
	if len(b) < 2 || b[0] != logMark[0] || b[1] != logMark[1] {
		return e, e.decodeFormat1(d)
	}
	d.take(2)
	e.deleted = d.uvarint() == 1
	e.previous, e.before, e.commit = int64(d.uvarint()), int64(d.uvarint()), int64(d.uvarint())
	e.key = string(d.bytes())
	for _, refs := range []*[]ref{&e.was, &e.is, &e.moved} {
		for range d.uvarint() {
			if d.err != nil {
				break
			}
			*refs = append(*refs, ref{string(d.bytes()), int64(d.uvarint())})
		}
	}
	e.added, e.removed = storage.DecodeTerms(d.bytes()), storage.DecodeTerms(d.bytes())
	return e, d.err
}

// readLogEntry is decodeLogEntry for reads of the history, which cannot go on across a
// damaged entry: it returns ErrCompacted.
func readLogEntry(k, v []byte) (*logEntry, error) {
	e, err := decodeLogEntry(k, v)
	if err != nil {
		return nil, fmt.Errorf("%w: the change %d: %w", storage.ErrCompacted, e.revision, err)
	}
	return e, nil
}

// decodeFormat1 reads an entry that has the values in it.
func (e *logEntry) decodeFormat1(d *decoder) error {
	e.previous, e.deleted = int64(d.uvarint()), d.uvarint() == 1
	e.key = string(d.bytes())
	value, old := d.bytes(), d.bytes()
	e.inline = &[2]*record{}
	if e.previous != 0 {
		e.inline[0] = bodyOf(e.previous, old)
	}
	if !e.deleted {
		e.inline[1] = bodyOf(e.revision, value)
	}
	return d.err
}

// recordBefore returns the record that the change replaced, nil if it created the key;
// recordAfter the one that it made, nil if it deleted the key. Both have the parts that
// read asks for.
func (e *logEntry) recordBefore(tx *bbolt.Tx, read *storage.Read) *record {
	if e.inline != nil {
		return e.inline[0]
	}
	if e.previous == 0 {
		return nil
	}
	return resolve(tx, e.key, e.previous, e.was, read)
}

func (e *logEntry) recordAfter(tx *bbolt.Tx, read *storage.Read) *record {
	if e.inline != nil {
		return e.inline[1]
	}
	if e.deleted {
		return nil
	}
	return resolve(tx, e.key, e.revision, e.is, read)
}

// resolve finds the parts of a record: those that no change has replaced since are in
// the current record, the others in the history bucket.
func resolve(tx *bbolt.Tx, key string, revision int64, refs []ref, read *storage.Read) *record {
	current := decodeRecord(tx.Bucket(dataBucket).Get([]byte(key)))
	r, body := &record{revision: revision}, int64(0)
	if at := slices.IndexFunc(refs, func(r ref) bool { return r.name == storage.SectionBody }); at >= 0 {
		body = refs[at].revision
	}
	for _, ref := range refs {
		if !wants(read, ref.name) || read.Fresh && ref.revision < body && section.Owner(ref.name) == ref.name {
			continue
		}
		p := part{name: ref.name, revision: ref.revision}
		if at, found := 0, false; current != nil {
			if at, found = current.find(ref.name); found && current.parts[at].revision == ref.revision {
				p.data = current.parts[at].data
			}
		}
		if p.data == nil {
			p.data = tx.Bucket(historyBucket).Get(historyKey(key, ref))
		}
		r.parts = append(r.parts, p) // one that is missing is malformed, and so reported
	}
	return r
}

func historyKey(key string, r ref) []byte {
	return append(append(append([]byte(key), 0), encodeRevision(r.revision)...), r.name...)
}

// insideCommit returns the end of the commit that revision is in, revision itself if it
// is in none.
func insideCommit(log *bbolt.Bucket, revision int64) (int64, error) {
	k := encodeRevision(revision)
	v := log.Get(k)
	if v == nil {
		return revision, nil
	}
	e, err := decodeLogEntry(k, v)
	if err != nil {
		return 0, err
	}
	return e.commit, nil
}

// Log implements storage.Backend.
func (s *Store) Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error) {
	for {
		s.mu.Lock()
		advanced := s.advanced
		s.mu.Unlock()
		changes, err := s.readLog(ctx, &req)
		if err != nil || len(changes) > 0 || req.NoWait {
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

func (s *Store) readLog(ctx context.Context, req *storage.LogRequest) ([]storage.Change, error) {
	var changes []storage.Change
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		if !known(tx, req.After) {
			return storage.ErrCompacted
		}
		before, end, size := req.After, int64(0), 0
		c := tx.Bucket(logBucket).Cursor()
		first := req.After + 1
		if req.Including {
			first = req.After
		}
		for k, v := c.Seek(encodeRevision(first)); k != nil; k, v = c.Next() {
			e, err := readLogEntry(k, v)
			if err != nil {
				return err
			}
			if e.revision > end && (len(changes) >= req.PageSize() || size >= storage.MaxPageBytes) {
				return nil
			}
			if e.inline != nil { // format 1 does not say
				e.before = before
			}
			change := e.change(tx, &req.Read)
			changes, size = append(changes, change), size+change.Size()
			before, end = e.revision, e.commit
		}
		return nil
	})
	return changes, err
}

func (e *logEntry) change(tx *bbolt.Tx, read *storage.Read) storage.Change {
	return storage.Change{
		Revision: e.revision, Key: e.key, Commit: e.commit, Before: e.before, Delete: e.deleted,
		Previous: e.recordBefore(tx, read).entry(e.key, read, nil), Current: e.recordAfter(tx, read).entry(e.key, read, nil),
	}
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
	}
	for bases := meta.Get(baseKey); len(bases) > 0; bases = bases[revisionSize:] {
		if decodeRevision(bases) == revision {
			return revision > compacted
		}
	}
	return revision > compacted && tx.Bucket(logBucket).Get(encodeRevision(revision)) != nil
}
