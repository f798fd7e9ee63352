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
	for _, e := range events {
		r.events, r.size = append(r.events, e), r.size+e.size()
	}
	drop, end := 0, int64(0)
	for size := r.size; drop < len(r.events); drop++ {
		c := r.events[drop].change
		if size <= r.limit && c.Revision > end {
			break
		}
		size, end = size-r.events[drop].size(), c.Commit
	}
	if drop > 0 {
		for _, e := range r.events[:drop] {
			r.size -= e.size()
		}
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
	size := 0
	for at := revision; at < start; {
		request := r.store.logRequest(at)
		request.NoWait = true
		changes, err := r.store.backend.Log(ctx, request)
		if err != nil {
			return false, unavailable(err)
		}
		for i := range changes {
			if at = changes[i].Revision; at > start {
				break
			}
			e := r.store.newEvent(&changes[i])
			older, size = append(older, e), size+e.size()
		}
		if size > room || len(changes) == 0 {
			return false, nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.start != start { // what came meanwhile has pushed events out
		return false, nil
	}
	r.start, r.events, r.size = revision, append(older, r.events...), r.size+size
	return true, nil
}
