package objects

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"tallyman/internal/crash"
	"tallyman/storage"
)

const (
	// watchQueue is how many events wait for a watch before it counts as slow.
	watchQueue = 1000
	// resultQueue is how many events the handler of a request may find at once: it flushes when there are
	// no more. Each watch has the memory for them.
	resultQueue = 32
	// bookmarkInterval and bookmarkBeforeEnd are when a watch that allows
	// bookmarks gets one, as in upstream's watch cache.
	bookmarkInterval  = time.Minute
	bookmarkBeforeEnd = 2 * time.Second
)

var errSlow = errors.New("the client did not keep up")

// Watch implements storage.Interface.
func (s *Store) Watch(ctx context.Context, key string, opts k8sstorage.ListOptions) (watch.Interface, error) {
	key, err := k8sstorage.PrepareKey(s.opts.ResourcePrefix, key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	version, err := s.versioner.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	if err := s.follower.start(); err != nil {
		return nil, err
	}
	w := &watcher{
		store: s, follower: s.follower, key: key, opts: opts, selector: s.newSelector(opts.Predicate), revision: int64(version),
		result: make(chan watch.Event, resultQueue), wake: make(chan struct{}, 1),
	}
	w.initial = (opts.SendInitialEvents == nil && version == 0) || (opts.SendInitialEvents != nil && *opts.SendInitialEvents)
	if version == 0 && !w.initial {
		window, err := s.window(ctx)
		if err != nil {
			return nil, err
		}
		w.revision, w.known = window.Current, true
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	if err := s.follower.goWatch(w.run); err != nil {
		w.cancel()
		return nil, err
	}
	return w, nil
}

// watcher is one watch. It sends the initial state if asked to, catches up with the follower
// by reading the log itself, and then takes events that the follower queues for it.
type watcher struct {
	store    *Store
	follower *follower
	ctx      context.Context // the watch's own; ends with the request or Stop
	cancel   context.CancelFunc
	key      string
	opts     k8sstorage.ListOptions
	selector *selector
	initial  bool
	revision int64 // every change up to it has been sent
	known    bool  // revision is one that the store has had; a client's may not be
	result   chan watch.Event
	wake     chan struct{} // has an element when there is something to do

	mu       sync.Mutex
	queue    []*event
	failure  error // why the follower gave the watch up
	progress bool  // a bookmark was requested
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

// push queues e, or gives the watch up if it is too far behind. The follower
// calls it and must not wait.
func (w *watcher) push(e *event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) < watchQueue {
		w.queue = append(w.queue, e)
	} else if w.failure == nil {
		w.failure = errSlow
		slowWatches.Inc()
	}
	w.wakeUp()
}

func (w *watcher) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failure = err
	w.wakeUp()
}

func (w *watcher) requestProgress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.progress = true
	w.wakeUp()
}

func (w *watcher) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) == 0 && w.failure == nil
}

func (w *watcher) drain() (queue []*event, progress bool, failure error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue, failure, progress = w.queue, w.failure, w.progress
	w.queue, w.progress = nil, false
	return queue, progress, failure
}

func (w *watcher) run() {
	openWatches.Inc()
	defer openWatches.Dec()
	defer close(w.result)
	defer w.cancel()
	stop := context.AfterFunc(w.follower.ctx, w.cancel)
	defer stop()
	if err := crash.Guard("watch", w.serve); err != nil {
		w.sendError(err)
	}
}

// serve returns nil if the watch ended by itself: the client left, or the
// process shuts down.
func (w *watcher) serve() error {
	if w.initial {
		if err := w.sendInitial(); err != nil {
			return err
		}
	}
	if err := w.catchUp(); err != nil {
		return err
	}
	defer w.follower.leave(w)
	utilflowcontrol.WatchInitialized(w.ctx) // from here on it costs little
	if w.opts.ProgressNotify {
		w.wakeUp()
	}
	bookmark := w.bookmarkTimer()
	defer bookmark.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return nil
		case <-w.wake:
			if err := w.sendQueued(); err != nil {
				return err
			}
		case <-bookmark.C:
			if err := w.bookmark(); err != nil {
				return err
			}
			bookmark.Reset(w.untilBookmark())
		}
	}
}

// catchUp sends the changes that the follower has delivered already, and joins it.
func (w *watcher) catchUp() error {
	if err := w.sendShared(); err != nil {
		return err
	}
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

// sendShared sends the events of a client's revision again, if several objects share it.
func (w *watcher) sendShared() error {
	if !w.store.opts.SharedRevisions || w.known || w.revision <= 0 {
		return nil
	}
	request := w.store.logRequest(w.revision)
	request.Including, request.NoWait, request.Limit = true, true, 1
	changes, err := w.store.backend.Log(w.ctx, request)
	if err != nil {
		return nil //nolint:nilerr // checkRevision and the next read say so
	}
	same := 0
	for same < len(changes) && changes[same].Revision == w.revision {
		same++
	}
	if same < 2 {
		return nil
	}
	w.revision--
	return w.sendAll(w.store.newEvents(changes[:same]))
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
		w.revision = e.done()
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
		return k8sstorage.NewTooLargeResourceVersionError(uint64(w.revision), uint64(window.Current), 1)
	case w.revision < window.Compacted:
		return storage.ErrCompacted
	}
	return nil
}
