package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

const (
	// logBatch bounds how many entries are read from the log in one step, but for the
	// rest of a commit.
	logBatch = 500
	// maxCommit is how many entries a commit has at most.
	maxCommit = storage.MaxMutations
)

var errMalformedLog = errors.New("redis: an entry of the log is malformed")

// logEntry is one change without its values.
type logEntry struct {
	revision, previous int64
	// before is the revision before the change, 0 if the version that wrote the entry
	// did not say; commit is that of the last change of the commit.
	before, commit int64
	key            string
	deleted        bool
	// moved are the fields of the key's history with the parts that the change replaced,
	// comma-separated.
	moved string
	// added and removed are the terms that the change gave and took.
	added, removed string
	// format1 is set if the replaced value is under a key of its own.
	format1 bool
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
	e := logEntry{deleted: m.Values["d"] != nil, format1: m.Values["w"] == nil}
	var err error
	if e.revision, err = messageRevision(m); err != nil {
		return e, err
	}
	text := func(name string) string {
		value, _ := m.Values[name].(string)
		return value
	}
	e.key, e.moved, e.added, e.removed = text("k"), text("w"), text("a"), text("x")
	e.before, e.commit = parseDigits(text("b")), e.revision
	if end := text("c"); end != "" {
		e.commit = parseDigits(end)
	}
	if e.previous, err = strconv.ParseInt(text("p"), 10, 64); err != nil || e.key == "" {
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

// wholeCommits cuts entries after at least n, but not inside a commit. A commit whose
// end is missing is cut, too.
func wholeCommits(entries []logEntry, n int) []logEntry {
	whole := 0
	for i := range entries {
		if entries[i].commit == entries[i].revision {
			whole = i + 1
			if whole >= n {
				break
			}
		}
	}
	return entries[:whole]
}

// Log implements storage.Backend. A revision that the log does not hold, because
// it was dropped or because a fail-over lost it, is ErrCompacted.
func (s *Store) Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error) {
	// A caller at the end of the tail can wait without asking Redis.
	for woken := !req.NoWait && !req.Including && s.tail.end() == req.After; ; woken = true {
		changed := s.nextChange()
		changes, err := s.changes(ctx, req, woken)
		if err != nil || len(changes) > 0 || req.NoWait {
			return changes, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.done:
			return nil, storage.ErrClosed
		}
	}
}

// changes returns a page of the present changes after a revision. A woken caller gets them
// from the tail.
func (s *Store) changes(ctx context.Context, req storage.LogRequest, woken bool) ([]storage.Change, error) {
	limit := min(logBatch, req.PageSize())
	var entries []logEntry
	known := false
	if woken && !req.Including && s.outage.Load() == nil {
		entries, known = s.tail.after(req.After, limit)
	}
	if !known {
		var err error
		if entries, err = s.entries(ctx, req.After, limit, req.Including); err != nil {
			return nil, err
		}
	}
	return s.withValues(ctx, entries, req.After, &req.Read)
}

// entries returns limit entries after revision, or including its own, and the rest of the last commit.
func (s *Store) entries(ctx context.Context, revision int64, limit int, including bool) ([]logEntry, error) {
	r, err := s.read(ctx, logScript, []string{s.meta, s.log}, formatAny, digits(revision), limit+maxCommit, including)
	if err != nil {
		return nil, err
	}
	entries, err := parseEntries(r.list(2))
	if err != nil {
		return nil, err
	}
	s.observe(r.integer(0))
	if len(entries) > 0 && entries[0].revision == revision {
		revision = entries[0].before
	}
	return wholeCommits(entries, limit), checkChain(entries, revision, strings.Split(r.text(1), ","))
}

// checkChain wants each entry to follow the one before it. One that does not, but
// follows one of the bases, revisions that no commit made, follows an Advance.
func checkChain(entries []logEntry, after int64, bases []string) error {
	for i := range entries {
		if before := entries[i].before; before != 0 && before != after && !slices.Contains(bases, digits(before)) {
			return fmt.Errorf("redis: the change %d follows %d, which is missing: %w", entries[i].revision, before, storage.ErrCompacted)
		}
		after = entries[i].revision
	}
	return nil
}

// withValues reads the values of entries, which follow the revision after, until they make a
// page. A missing value was dropped with its entry since, or was evicted: either way the
// change cannot be told.
func (s *Store) withValues(ctx context.Context, entries []logEntry, after int64, read *storage.Read) ([]storage.Change, error) {
	refs := make([]ref, 0, 2*len(entries))
	ends := make([]int, len(entries)) // of each entry, the place after its last value
	first := 0                        // values of the first commit
	for i := range entries {
		e := &entries[i]
		if e.previous != 0 {
			refs = append(refs, ref{key: e.key, revision: e.previous})
		}
		if !e.deleted {
			refs = append(refs, ref{key: e.key, revision: e.revision})
		}
		if ends[i] = len(refs); first == 0 && e.commit == e.revision {
			first = len(refs)
		}
	}
	loaded, err := s.load(ctx, refs, first, read)
	if err != nil {
		return nil, err
	}
	for len(entries) > 0 && ends[len(entries)-1] > loaded {
		entries = entries[:len(entries)-1]
	}
	entries = wholeCommits(entries, len(entries))
	changes := make([]storage.Change, len(entries))
	next := 0
	take := func() *storage.Entry {
		next++
		return refs[next-1].entry
	}
	for i := range entries {
		e := &entries[i]
		c := &changes[i]
		*c = storage.Change{Revision: e.revision, Key: e.key, Commit: e.commit, Before: e.before, Delete: e.deleted}
		if c.Before == 0 {
			c.Before = after
		}
		after = e.revision
		if e.previous != 0 {
			if c.Previous = take(); c.Previous == nil {
				return nil, storage.ErrCompacted
			}
		}
		if !e.deleted {
			if c.Current = take(); c.Current == nil {
				return nil, storage.ErrCompacted
			}
		}
	}
	return changes, nil
}
