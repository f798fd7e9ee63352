package storage

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// event is one change, shared by all watches: it is decrypted and decoded once.
type event struct {
	change   *Change
	current  func() (*Encoded, error) // nil result if the change is a deletion
	previous func() (*Encoded, error) // nil result if the change is a creation
}

// eventsAfter reads a page of the log after a revision, empty if there is no change yet.
func (s *Store) eventsAfter(ctx context.Context, revision int64) ([]*event, error) {
	request := s.logRequest(revision)
	request.NoWait = true
	changes, err := s.backend.Log(ctx, request)
	if err != nil {
		return nil, unavailable(err)
	}
	return s.newEvents(changes), nil
}

func (s *Store) newEvents(changes []Change) []*event {
	events := make([]*event, len(changes))
	for i := range changes {
		events[i] = s.newEvent(&changes[i])
	}
	return events
}

func (s *Store) newEvent(c *Change) *event {
	e := &event{change: c}
	version := func(entry *Entry) func() (*Encoded, error) {
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
	return e
}

// newShared returns the object of a watch event. It is decoded only if a
// selector, or an answer other than JSON, needs it.
func (s *Store) newShared(entry *Entry, indexed bool) (*Encoded, error) {
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
	if sel.everything() && current != nil {
		if e.change.Previous == nil {
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
	case isMatch && wasMatch:
		return watch.Modified, current, true, nil
	case isMatch:
		return watch.Added, current, true, nil
	case wasMatch:
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

// timed is an event's object with the time it was seen, for a watch that asked
// for that.
type timed struct {
	runtime.Object
	at time.Time
}

var _ storage.WatchEventWithRecordTime = (*timed)(nil)

func (t *timed) GetObjectMeta() metav1.Object {
	accessor, err := meta.Accessor(t.Object)
	if err != nil {
		return &metav1.ObjectMeta{}
	}
	return accessor
}

func (t *timed) DeepCopyObject() runtime.Object { return &timed{t.Object.DeepCopyObject(), t.at} }
func (t *timed) RecordTime() time.Time          { return t.at }
func (t *timed) Unwrap() runtime.Object         { return t.Object }
