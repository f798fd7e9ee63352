package redis

import (
	"context"
	"sync"

	"tallyman/storage"
)

// history keeps the end of the log in this process, so that the pages of a long
// list, all at one revision, do not read what happened since again and again.
type history struct {
	store *Store

	mu      sync.Mutex
	start   int64 // entries has every change after start
	entries []logEntry
}

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
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.reach(ctx, after, until); err != nil {
		return nil, err
	}
	past := map[string]*undo{}
	for _, e := range h.entries {
		if e.revision <= after || e.key < from || e.key >= to {
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

// reach makes entries cover what is after after, up to until.
func (h *history) reach(ctx context.Context, after, until int64) error {
	if len(h.entries) == 0 || after < h.start || after > h.end() {
		h.start, h.entries = after, nil
	}
	for h.end() < until {
		entries, err := h.store.entries(ctx, h.end(), logBatch)
		if err != nil {
			h.start, h.entries = 0, nil
			return err
		}
		if len(entries) == 0 {
			break // what was until then has been lost since; the caller's next step finds out
		}
		h.entries = append(h.entries, entries...)
	}
	if excess := len(h.entries) - h.store.opts.History.MaxEntries; excess > 0 && h.entries[excess-1].revision <= after {
		h.start, h.entries = h.entries[excess-1].revision, h.entries[excess:]
	}
	return nil
}

func (h *history) end() int64 {
	if len(h.entries) == 0 {
		return h.start
	}
	return h.entries[len(h.entries)-1].revision
}

// clear forgets everything. It is for a store that is not the same any more.
func (h *history) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.start, h.entries = 0, nil
}
