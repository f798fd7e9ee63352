package redis

import (
	"context"
	"sync"
)

// history keeps the end of the log in this process, so that the pages of a long
// list, all at one revision, do not read what happened since again and again.
type history struct {
	store *Store

	mu      sync.Mutex
	start   int64 // entries has every change after start
	entries []logEntry
}

// between returns, for each key from from to before to that changed after the
// revision after, up to the revision until, its first and its last change.
func (h *history) between(ctx context.Context, after, until int64, from, to string) (first, last map[string]logEntry, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.reach(ctx, after, until); err != nil {
		return nil, nil, err
	}
	first, last = map[string]logEntry{}, map[string]logEntry{}
	for _, e := range h.entries {
		if e.revision <= after || e.key < from || e.key >= to {
			continue
		}
		if e.revision > until {
			break
		}
		if _, ok := first[e.key]; !ok {
			first[e.key] = e
		}
		last[e.key] = e
	}
	return first, last, nil
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
	if excess := len(h.entries) - h.store.opts.LogMaxEntries; excess > 0 && h.entries[excess-1].revision <= after {
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
