package redis

import (
	"context"
	"errors"
	"sort"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

// history keeps the end of the log in this process, so that the pages of a long
// list, all at one revision, read each change since then once.
type history struct {
	store   *Store
	reading chan struct{} // holds the one reader that extends the entries

	mu      sync.Mutex
	start   int64 // entries has every change after start
	entries []logEntry
	clears  int // number of calls of clear
}

func newHistory(s *Store) *history { return &history{store: s, reading: make(chan struct{}, 1)} }

// undo sums up the changes of a key in some interval.
type undo struct {
	first, last logEntry
	// mentioned is set if a change gave or took the term of the scan; had says whether
	// the key had it before the first such change.
	mentioned, had bool
}

// between sums up the changes of each key in [from, to) in the revision interval
// (after, until]. term is that of a scan by term, "" for none.
func (h *history) between(ctx context.Context, after, until int64, from, to, term string) (map[string]*undo, error) {
	entries, err := h.covering(ctx, after, until)
	if err != nil {
		return nil, err
	}
	past := map[string]*undo{}
	for _, e := range entries {
		if e.key < from || e.key >= to {
			continue
		}
		if e.revision > until {
			break
		}
		u := past[e.key]
		if u == nil {
			u = &undo{first: e}
			past[e.key] = u
		}
		u.last = e
		if removed := hasTerm(e.removed, term); term != "" && !u.mentioned && (removed || hasTerm(e.added, term)) {
			u.mentioned, u.had = true, removed
		}
	}
	return past, nil
}

// hasTerm reports whether one of the terms, one after the other, is term.
func hasTerm(terms, term string) bool {
	for ; len(terms) >= storage.TermSize; terms = terms[storage.TermSize:] {
		if terms[:storage.TermSize] == term {
			return true
		}
	}
	return false
}

// covering returns the changes after after, up to until at least. Callers whose interval
// is known already do not wait for those that read.
func (h *history) covering(ctx context.Context, after, until int64) ([]logEntry, error) {
	if entries, ok := h.known(after, until); ok {
		return entries, nil
	}
	select {
	case h.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.reading }()
	if entries, ok := h.known(after, until); ok {
		return entries, nil
	}
	h.mu.Lock()
	start, entries, clears := h.start, h.entries, h.clears
	h.mu.Unlock()
	if held := h.store.Oldest(); len(entries) == 0 || after > lastRevision(entries, start) && (held == 0 || held >= after) {
		start, entries = after, nil // no list in progress needs the older ones
	}
	if after < start {
		earlier, err := h.read(ctx, nil, after, start)
		if err != nil {
			return nil, err
		}
		start, entries = after, append(changesUntil(earlier, start), entries...)
	}
	end := lastRevision(entries, start)
	longer, err := h.read(ctx, entries, end, until)
	if errors.Is(err, storage.ErrCompacted) && end < after { // the gap is gone
		start = after
		longer, err = h.read(ctx, nil, after, until)
	}
	if err != nil {
		return nil, err
	}
	h.keep(start, longer, after, clears)
	return changesAfter(longer, after), nil
}

// known returns the changes after after, if all up to until are in memory.
func (h *history) known(after, until int64) ([]logEntry, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.entries) == 0 || after < h.start || lastRevision(h.entries, h.start) < until {
		return nil, false
	}
	return changesAfter(h.entries, after), true
}

// read appends the changes after a revision to entries, up to until at least. There are
// fewer if the store has lost them since, which the caller's next step finds out.
func (h *history) read(ctx context.Context, entries []logEntry, after, until int64) ([]logEntry, error) {
	for after < until {
		more, err := h.store.entries(ctx, after, logBatch, false)
		if err != nil {
			return nil, err
		}
		if len(more) == 0 {
			break
		}
		entries, after = append(entries, more...), lastRevision(more, after)
	}
	return entries, nil
}

// keep stores entries, unless the history was cleared since. It drops the oldest beyond
// the bound that neither this reader nor another list in progress needs.
func (h *history) keep(start int64, entries []logEntry, after int64, clears int) {
	needed := after
	if held := h.store.Oldest(); held > 0 {
		needed = min(needed, held)
	}
	if excess := len(entries) - h.store.opts.History.MaxEntries; excess > 0 {
		excess = min(excess, len(entries)-len(changesAfter(entries, needed)))
		start, entries = lastRevision(entries[:excess], start), entries[excess:]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.clears == clears {
		h.start, h.entries = start, entries
	}
}

// changesAfter returns the entries after a revision.
func changesAfter(entries []logEntry, revision int64) []logEntry {
	return entries[sort.Search(len(entries), func(i int) bool { return entries[i].revision > revision }):]
}

// changesUntil returns the entries up to a revision.
func changesUntil(entries []logEntry, revision int64) []logEntry {
	return entries[:len(entries)-len(changesAfter(entries, revision))]
}

// lastRevision returns the revision of the last entry, or start if there is none.
func lastRevision(entries []logEntry, start int64) int64 {
	if len(entries) == 0 {
		return start
	}
	return entries[len(entries)-1].revision
}

// clear forgets everything. It is for a store that is not the same any more.
func (h *history) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.start, h.entries = 0, nil
	h.clears++
}

// tailEntries bounds how many entries a tail has.
const tailEntries = 5000

// tail is the end of the log as the monitor has read it. All followers in the process share
// it. Each entry names its predecessor, so a gap is noticed.
type tail struct {
	mu      sync.Mutex
	start   int64 // entries has every change after it; 0 if nothing is known
	entries []logEntry
}

// reset empties the tail. The next entry follows revision.
func (t *tail) reset(revision int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start, t.entries = revision, nil
}

// end returns the last revision, 0 if nothing is known.
func (t *tail) end() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last()
}

func (t *tail) last() int64 { return lastRevision(t.entries, t.start) }

// add appends messages read after the end, and returns the newest revision. At a gap (an
// Advance, another history) the tail restarts, and followers ask the store.
func (t *tail) add(messages []goredis.XMessage) (newest int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range messages {
		e, err := messageEntry(messages[i])
		if err != nil {
			t.start, t.entries = 0, nil
			continue
		}
		if newest = e.revision; e.before == 0 || e.before != t.last() {
			t.start, t.entries = e.revision, nil
			continue
		}
		t.entries = append(t.entries, e)
	}
	if excess := len(t.entries) - tailEntries; excess > 0 {
		t.start = t.entries[excess-1].revision
		t.entries = append([]logEntry(nil), t.entries[excess:]...)
	}
	return newest
}

// after returns whole commits after a revision, about limit entries. It returns false if
// the revision is unknown.
func (t *tail) after(revision int64, limit int) ([]logEntry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := t.entries
	if revision != t.start {
		at := sort.Search(len(entries), func(i int) bool { return entries[i].revision >= revision })
		if at == len(entries) || entries[at].revision != revision {
			return nil, false
		}
		entries = entries[at+1:]
	}
	return wholeCommits(entries, limit), true
}

// HistoryBytes returns the size of the history, as HistoryBounds.MaxBytes bounds it.
func (s *Store) HistoryBytes(ctx context.Context) (n int64, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		size, err := s.client.HMGet(ctx, s.meta, "logbytes").Result()
		if err == nil {
			n = number(size[0])
		}
		return err
	})
	return n, err
}
