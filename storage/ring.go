package storage

import (
	"context"
	"sort"
	"sync"
)

const (
	// ringBytes is the maximum size of the values in a ring. Each encoding of an event needs
	// about the same again.
	ringBytes = 8 << 20
	// eventOverhead is the approximate size of an event without its values.
	eventOverhead = 500
)

// ring keeps the last events for watches that resume. They share the events, decoded and
// encoded once.
type ring struct {
	store *Store
	limit int

	mu     sync.Mutex
	start  int64    // events has every change after it
	events []*event // in order
	size   int

	extending sync.Mutex // held by the one that reads older events
}

func (e *event) size() int { return e.change.Size() + eventOverhead }

func sizeOf(events []*event) (size int) {
	for _, e := range events {
		size += e.size()
	}
	return size
}

// reset empties the ring. The next event follows revision.
func (r *ring) reset(revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start, r.events, r.size = revision, nil, 0
}

// add appends events, and drops the oldest commits over the limit.
func (r *ring) add(events []*event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events, r.size = append(r.events, events...), r.size+sizeOf(events)
	drop, end := 0, int64(0)
	for ; drop < len(r.events) && (r.size > r.limit || r.events[drop].change.Revision <= end); drop++ {
		r.size, end = r.size-r.events[drop].size(), r.events[drop].change.Commit
	}
	if drop > 0 {
		r.start = r.events[drop-1].change.Revision
		r.events = append([]*event(nil), r.events[drop:]...)
	}
}

// after returns the events after a revision. It returns false for a revision that is older
// than the ring or not in it, for example one of a lost history.
func (r *ring) after(revision int64) ([]*event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if revision == r.start {
		return r.events, true
	}
	at := sort.Search(len(r.events), func(i int) bool { return r.events[i].change.Revision >= revision })
	if at == len(r.events) || r.events[at].change.Revision != revision {
		return nil, false
	}
	return r.events[at+1:], true
}

// extend reads the events after an older revision into the ring. It returns false if they
// do not fit, or if the revision is not older than the ring.
func (r *ring) extend(ctx context.Context, revision int64) (bool, error) {
	r.extending.Lock()
	defer r.extending.Unlock()
	if _, ok := r.after(revision); ok {
		return true, nil // another watch was faster
	}
	r.mu.Lock()
	start, room := r.start, r.limit-r.size
	r.mu.Unlock()
	if revision >= start { // the follower is yet to hand it out
		return false, nil
	}
	var older []*event
	for at := revision; at < start; at = older[len(older)-1].change.Revision {
		page, err := r.store.eventsAfter(ctx, at)
		if err != nil {
			return false, err
		}
		if older = append(older, page...); len(page) == 0 || sizeOf(older) > room {
			return false, nil
		}
	}
	older = older[:sort.Search(len(older), func(i int) bool { return older[i].change.Revision > start })]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start != start { // newer events have pushed these out
		return false, nil
	}
	r.start, r.events, r.size = revision, append(older, r.events...), r.size+sizeOf(older)
	return true, nil
}
