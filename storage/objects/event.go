package objects

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sort"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"tallyman/storage"
)

// event is one change, shared by all watches: it is decrypted and decoded once.
type event struct {
	change *storage.Change
	// shared is set if the next event has the same revision: one record is a part of several objects.
	shared   bool
	current  func() (*Encoded, error) // nil result if the change is a deletion
	previous func() (*Encoded, error) // nil result if the change is a creation
	// replaced is the previous object if the current one is another, with another uid; else nil, also
	// if one of them cannot be read.
	replaced func() *Encoded
}

// eventsAfter reads a page of the log after a revision, empty if there is no change yet.
func (s *Store) eventsAfter(ctx context.Context, revision int64) ([]*event, error) {
	request := s.logRequest(revision)
	request.NoWait = true
	changes, err := s.backend.Log(ctx, request)
	if err != nil {
		return nil, Unavailable(err)
	}
	return s.newEvents(changes), nil
}

func (s *Store) newEvents(changes []storage.Change) []*event {
	events := make([]*event, len(changes))
	for i := range changes {
		events[i] = s.newEvent(&changes[i])
		events[i].shared = i+1 < len(changes) && changes[i+1].Revision == changes[i].Revision
	}
	return events
}

// done returns the revision up to which a watch has seen everything once it has seen e.
func (e *event) done() int64 {
	if e.shared {
		return e.change.Revision - 1
	}
	return e.change.Revision
}

func (s *Store) newEvent(c *storage.Change) *event {
	e := &event{change: c}
	version := func(entry *storage.Entry) func() (*Encoded, error) {
		return sync.OnceValues(func() (*Encoded, error) {
			if entry == nil {
				return nil, nil
			}
			shown := *entry
			shown.Revision = c.Revision // a deleted object carries the revision of its deletion
			// The previous entry had its terms if the index was complete before the change.
			return s.newShared(&shown, s.indexer.trusted(c.Before))
		})
	}
	e.current, e.previous = version(c.Current), version(c.Previous)
	e.replaced = sync.OnceValue(func() *Encoded { return s.replacedBy(e) })
	return e
}

// replacedBy returns the previous object if the current one is another. It carries the revision before
// that of the change, so that a watch that goes on from there sees the current one.
func (s *Store) replacedBy(e *event) *Encoded {
	previous, err := e.previous()
	if err != nil || previous == nil {
		return nil
	}
	current, err := e.current()
	if err != nil || current == nil || bytes.Equal(firstUID(previous.data), firstUID(current.data)) {
		return nil
	}
	before, err := uidOf(previous)
	if err != nil {
		return nil
	}
	if after, err := uidOf(current); err != nil || before == after {
		return nil
	}
	shown := *e.change.Previous
	shown.Revision = e.change.Before
	replaced, err := s.newShared(&shown, s.indexer.trusted(e.change.Before))
	if err != nil {
		return nil
	}
	return replaced
}

// firstUID returns the part of an object's JSON with the first uid, which is that of the object if it
// has one.
func firstUID(data []byte) []byte {
	_, rest, _ := bytes.Cut(data, []byte(`"uid":"`))
	return rest[:max(bytes.IndexByte(rest, '"'), 0)]
}

func uidOf(e *Encoded) (types.UID, error) {
	object, err := e.Object()
	if err != nil {
		return "", err
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return "", err
	}
	return accessor.GetUID(), nil
}

// newShared returns the object of a watch event. It is decoded only if a
// selector, or an answer other than JSON, needs it.
func (s *Store) newShared(entry *storage.Entry, indexed bool) (*Encoded, error) {
	data, _, err := s.transform(context.Background(), entry)
	if err != nil {
		return nil, err
	}
	encoded := s.newEncoded(data, entry, indexed)
	encoded.shared = &encodings{}
	return encoded, nil
}

// forWatch returns the event of the change for a watch with a selector: an object that starts
// or stops matching is added or deleted. The bool is false if there is none.
func (e *event) forWatch(sel *selector) (watch.EventType, *Encoded, bool, error) {
	current, err := e.current()
	if err != nil {
		return "", nil, false, err
	}
	replaced := e.replaced()
	if sel.everything() && current != nil {
		if e.change.Previous == nil || replaced != nil {
			return watch.Added, current, true, nil
		}
		return watch.Modified, current, true, nil
	}
	previous, err := e.previous()
	if err != nil {
		return "", nil, false, e.unreadable(err)
	}
	isMatch, err := sel.matches(current)
	if err != nil {
		return "", nil, false, err
	}
	wasMatch, err := sel.matches(previous)
	if err != nil {
		return "", nil, false, e.unreadable(err)
	}
	switch {
	case isMatch && wasMatch && replaced == nil:
		return watch.Modified, current, true, nil
	case isMatch:
		return watch.Added, current, true, nil
	case wasMatch && replaced == nil:
		return watch.Deleted, previous, true, nil
	}
	return "", nil, false, nil
}

// unreadable says that the object of a deletion cannot be shown.
func (e *event) unreadable(err error) error {
	if !e.change.Delete {
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInternalServerError,
		Reason:  metav1.StatusReasonStoreReadError,
		Message: fmt.Sprintf("saw a DELETED event, but object data is corrupt - key: %q, revision: %d: %v", e.change.Key, e.change.Revision, err),
	}}
}

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
	for r.events[at].shared {
		at++
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
