package objects

import (
	"errors"
	"fmt"
	"path"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
)

// sendInitial sends the present state as ADDED events, and the bookmark that
// ends them if asked for.
func (w *watcher) sendInitial() error {
	list := k8sstorage.ListOptions{Recursive: w.opts.Recursive, Predicate: w.opts.Predicate}
	list.Predicate.Limit, list.Predicate.Continue = 0, ""
	if w.revision > 0 {
		list.ResourceVersion = fmt.Sprint(w.revision) // at least as new as the client's state
	}
	l, err := w.store.newLister(w.key, list)
	if err != nil {
		return err
	}
	err = l.each(w.ctx, func(e *storage.Entry) (bool, error) {
		encoded, err := w.store.newShared(e, l.indexed)
		matched := false
		if err == nil {
			matched, err = w.selector.matches(encoded)
		}
		if w.store.skips(e.Key, err) {
			return false, nil
		}
		if err != nil || !matched {
			return false, err
		}
		return true, w.send(watch.Added, encoded)
	})
	if err != nil {
		return err
	}
	w.revision, w.known = l.revision, true
	if w.opts.SendInitialEvents == nil || !w.opts.Predicate.AllowWatchBookmarks {
		return nil
	}
	obj := w.store.opts.NewFunc()
	if err := w.store.versioner.UpdateObject(obj, uint64(w.revision)); err != nil {
		return err
	}
	if err := k8sstorage.AnnotateInitialEventsEndBookmark(obj); err != nil {
		return err
	}
	return w.send(watch.Bookmark, obj)
}

// sendQueued sends the queued events.
func (w *watcher) sendQueued() error {
	queue, progress, failure := w.drain()
	for _, e := range queue {
		if err := w.sendEvent(e); err != nil {
			return err
		}
	}
	if failure != nil {
		return failure
	}
	if progress || (w.opts.ProgressNotify && len(queue) == 0) {
		return w.bookmark()
	}
	return nil
}

// sendEvent sends e if the watch's selector lets it.
func (w *watcher) sendEvent(e *event) error {
	if e.change.Revision <= w.revision {
		return nil // the initial state had it
	}
	if err := w.sendReplaced(e); err != nil {
		return err
	}
	kind, obj, visible, err := e.forWatch(w.selector)
	if err != nil {
		if !w.store.skips(e.change.Key, err) {
			return err
		}
		w.revision = e.done()
		return w.sendGone(e.change)
	}
	w.revision = e.done()
	if !visible {
		return nil
	}
	return w.send(kind, obj)
}

// sendReplaced sends DELETED for the object that another one has taken the place of, so that ADDED follows
// for that one.
func (w *watcher) sendReplaced(e *event) error {
	replaced := e.replaced()
	if replaced == nil {
		return nil
	}
	if matches, err := w.selector.matches(replaced); err != nil || !matches {
		return nil //nolint:nilerr // the event itself tells of it
	}
	return w.send(watch.Deleted, replaced)
}

// sendGone sends DELETED with the name only, for a change to a corrupt object. The client
// may have an older version, and lists skip the object.
func (w *watcher) sendGone(c *storage.Change) error {
	obj := w.store.opts.NewFunc()
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return err
	}
	accessor.SetName(path.Base(c.Key))
	if err := w.store.versioner.UpdateObject(obj, uint64(c.Revision)); err != nil {
		return err
	}
	return w.send(watch.Deleted, obj)
}

// bookmark tells the client the revision up to which it has seen everything.
func (w *watcher) bookmark() error {
	revision, idle := w.follower.idle(w)
	if !idle {
		w.requestProgress() // sends the queue, and then tries again
		return nil
	}
	w.revision = max(w.revision, revision)
	obj := w.store.opts.NewFunc()
	if err := w.store.versioner.UpdateObject(obj, uint64(w.revision)); err != nil {
		return err
	}
	return w.send(watch.Bookmark, obj)
}

// bookmarkTimer is the timer for the first bookmark, which a watch that is shorter than
// the last stretch gets halfway.
func (w *watcher) bookmarkTimer() *time.Timer {
	first := w.untilBookmark()
	if deadline, ok := w.ctx.Deadline(); ok {
		if left := time.Until(deadline); left < bookmarkBeforeEnd {
			first = left / 2
		}
	}
	timer := time.NewTimer(first)
	if !w.opts.Predicate.AllowWatchBookmarks {
		timer.Stop()
	}
	return timer
}

// untilBookmark is the time to the next bookmark: shortly before the watch
// times out, so that the client resumes where it was, and at least each minute.
func (w *watcher) untilBookmark() time.Duration {
	deadline, ok := w.ctx.Deadline()
	if !ok {
		return bookmarkInterval
	}
	if left := time.Until(deadline) - bookmarkBeforeEnd; left > 0 {
		return min(left, bookmarkInterval)
	}
	return bookmarkInterval
}

// timed is an event's object with the time it was seen, for a watch that asked
// for that.
type timed struct {
	runtime.Object
	at time.Time
}

var _ k8sstorage.WatchEventWithRecordTime = (*timed)(nil)

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

func (w *watcher) send(kind watch.EventType, obj runtime.Object) error {
	if w.opts.RecordTimestamps {
		obj = &timed{Object: obj, at: time.Now()}
	}
	select {
	case w.result <- watch.Event{Type: kind, Object: obj}:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// sendError ends the watch with an ERROR event that tells the client to list again (410), or
// to come back.
func (w *watcher) sendError(err error) {
	if w.ctx.Err() != nil {
		return
	}
	switch {
	case errors.Is(err, storage.ErrCompacted):
		err = apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %s", w.opts.ResourceVersion))
	case errors.Is(err, errSlow):
		err = apierrors.NewTooManyRequests(fmt.Sprintf("the watch was closed because %v; watch again from the last resourceVersion", err), 1)
	}
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	_ = w.send(watch.Error, &status) // the client has left if this fails
}
