package storage

import (
	"k8s.io/apiserver/pkg/storage"
)

// catchUp sends the changes that the follower has delivered already, and joins it.
func (w *watcher) catchUp() error {
	if err := w.checkRevision(); err != nil {
		return err
	}
	for !w.follower.join(w) {
		if events, ok := w.follower.recent.after(w.revision); ok {
			if err := w.sendAll(events); err != nil {
				return err
			}
			continue
		}
		if ok, err := w.follower.recent.extend(w.ctx, w.revision); ok || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := w.readLog(); err != nil {
			return err
		}
	}
	return nil
}

// sendAll sends events that follow the revision of the watch, which is known.
func (w *watcher) sendAll(events []*event) error {
	w.known = true
	for _, e := range events {
		if w.covers(e.change.Key) {
			if err := w.sendEvent(e); err != nil {
				return err
			}
		}
		w.revision = e.change.Revision
	}
	return nil
}

// readLog sends a page of the log after the revision of the watch.
func (w *watcher) readLog() error {
	position := w.follower.position()
	events, err := w.store.eventsAfter(w.ctx, w.revision)
	if err != nil {
		return err
	}
	if err := w.sendAll(events); err != nil {
		return err
	}
	if len(events) == 0 { // the revision was advanced without a change
		w.revision = max(w.revision, position)
	}
	return nil
}

// checkRevision rejects a client's revision that is newer than the store or older than its
// history. catchUp rejects a revision of another history.
func (w *watcher) checkRevision() error {
	if w.known || w.revision == w.follower.position() {
		w.known = true
		return nil
	}
	window, err := w.store.window(w.ctx)
	switch {
	case err != nil:
		return err
	case uint64(w.revision) > uint64(window.Current): // a client's may be above 2^63
		return storage.NewTooLargeResourceVersionError(uint64(w.revision), uint64(window.Current), 1)
	case w.revision < window.Compacted:
		return ErrCompacted
	}
	return nil
}
