package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

// logBatch bounds how many entries are read from the log in one step.
const logBatch = 500

var errMalformedLog = errors.New("redis: an entry of the log is malformed")

// logEntry is one change without its values.
type logEntry struct {
	revision, previous int64
	key                string
	deleted            bool
}

// parseEntry reads an entry as XRANGE replies it inside a script.
func parseEntry(v any) (logEntry, error) {
	entry, _ := v.([]any)
	if len(entry) != 2 {
		return logEntry{}, errMalformedLog
	}
	id, _ := entry[0].(string)
	fields, _ := entry[1].([]any)
	values := map[string]any{}
	for i := 0; i+1 < len(fields); i += 2 {
		name, _ := fields[i].(string)
		values[name] = fields[i+1]
	}
	return messageEntry(goredis.XMessage{ID: id, Values: values})
}

func messageEntry(m goredis.XMessage) (logEntry, error) {
	e := logEntry{deleted: m.Values["d"] != nil}
	var err error
	if e.revision, err = messageRevision(m); err != nil {
		return e, err
	}
	e.key, _ = m.Values["k"].(string)
	previous, _ := m.Values["p"].(string)
	if e.previous, err = strconv.ParseInt(previous, 10, 64); err != nil || e.key == "" {
		return e, fmt.Errorf("%w: %s", errMalformedLog, m.ID)
	}
	return e, nil
}

func messageRevision(m goredis.XMessage) (int64, error) {
	head, _, _ := strings.Cut(m.ID, "-")
	revision, err := strconv.ParseInt(head, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %q", errMalformedLog, m.ID)
	}
	return revision, nil
}

// Log implements storage.Backend. A revision that the log does not hold, because
// it was dropped or because a fail-over lost it, is ErrCompacted.
func (s *Store) Log(ctx context.Context, revision int64, limit int) ([]storage.Change, error) {
	for {
		bell := s.nextChange()
		changes, err := s.changes(ctx, revision, limit)
		if err != nil || len(changes) > 0 {
			return changes, err
		}
		select {
		case <-bell:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.done:
			return nil, storage.ErrClosed
		}
	}
}

// changes returns the changes after revision that there are now.
func (s *Store) changes(ctx context.Context, revision int64, limit int) ([]storage.Change, error) {
	var all []storage.Change
	for {
		batch := logBatch
		if limit > 0 {
			batch = min(batch, limit-len(all))
		}
		entries, err := s.entries(ctx, revision, batch)
		if err != nil {
			return nil, err
		}
		changes, err := s.withValues(ctx, entries)
		if err != nil {
			return nil, err
		}
		all = append(all, changes...)
		if len(entries) < logBatch || len(all) == limit {
			return all, nil
		}
		revision = entries[len(entries)-1].revision
	}
}

// entries returns up to limit entries after revision.
func (s *Store) entries(ctx context.Context, revision int64, limit int) ([]logEntry, error) {
	r, err := s.read(ctx, logScript, []string{s.meta, s.log}, formatVersion, digits(revision), limit)
	if err != nil {
		return nil, err
	}
	list := r.list(1)
	entries := make([]logEntry, len(list))
	for i := range list {
		if entries[i], err = parseEntry(list[i]); err != nil {
			return nil, err
		}
	}
	s.observe(r.integer(0))
	return entries, nil
}

// withValues reads the values of entries. One that is gone has been dropped with
// its entry since, or was evicted: either way what happened cannot be told.
func (s *Store) withValues(ctx context.Context, entries []logEntry) ([]storage.Change, error) {
	refs := make([]ref, 0, 2*len(entries))
	for i := range entries {
		e := &entries[i]
		if e.previous != 0 {
			refs = append(refs, ref{key: e.key, revision: e.previous, replaced: true})
		}
		if !e.deleted {
			refs = append(refs, ref{key: e.key, revision: e.revision})
		}
	}
	if err := s.load(ctx, refs); err != nil {
		return nil, err
	}
	changes := make([]storage.Change, len(entries))
	next := 0
	take := func() []byte {
		next++
		return refs[next-1].value
	}
	for i := range entries {
		e := &entries[i]
		c := &changes[i]
		*c = storage.Change{Revision: e.revision, Key: e.key, PrevRevision: e.previous}
		if e.previous != 0 {
			if c.PrevValue = take(); c.PrevValue == nil {
				return nil, storage.ErrCompacted
			}
		}
		if !e.deleted {
			if c.Value = take(); c.Value == nil {
				return nil, storage.ErrCompacted
			}
		}
	}
	return changes, nil
}
