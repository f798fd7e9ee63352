package objects

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"tallyman/internal/crash"
	"tallyman/storage"
)

const (
	// followBatch is how many changes are read from the log at a time.
	followBatch = 500
	// followRetry is the pause after the log could not be read.
	followRetry = 500 * time.Millisecond
)

// follower reads the log once for all watches of the process. It starts with
// the first watch.
type follower struct {
	store  *Store
	recent ring
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	done   chan struct{} // closed when run has ended

	mu       sync.Mutex
	running  bool
	revision int64 // every change up to it has been handed to the watches
	watches  map[*watcher]struct{}
	wg       sync.WaitGroup // of the watches
}

func newFollower(s *Store) *follower {
	f := &follower{store: s, done: make(chan struct{}), watches: map[*watcher]struct{}{}, recent: ring{store: s, limit: ringBytes}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// start makes sure that the log is being followed.
func (f *follower) start() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return Unavailable(storage.ErrClosed)
	}
	if f.running {
		return nil
	}
	w, err := f.store.window(f.ctx)
	if err != nil {
		return err
	}
	f.revision, f.running = w.Current, true
	f.recent.reset(w.Current)
	go f.run()
	return nil
}

// goWatch runs a watch, unless the follower is closed.
func (f *follower) goWatch(run func()) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ctx.Err() != nil {
		return Unavailable(storage.ErrClosed)
	}
	f.wg.Go(run)
	return nil
}

// close ends the follower and all watches.
func (f *follower) close() {
	f.mu.Lock()
	f.cancel()
	running := f.running
	f.mu.Unlock()
	if running {
		<-f.done
	}
	f.wg.Wait()
}

// run follows the log until close. If its place in the log is lost, every watch
// is told 410 and it goes on at the store's current revision.
func (f *follower) run() {
	defer close(f.done)
	failing := false
	for f.ctx.Err() == nil {
		var changes []storage.Change
		err := crash.Guard("change log", func() (err error) {
			changes, err = f.store.backend.Log(f.ctx, f.store.logRequest(f.position()))
			return err
		})
		switch {
		case err == nil:
			f.deliver(changes)
		case errors.Is(err, storage.ErrCompacted):
			klog.InfoS("The last change seen is not in the log any more; watches are told to list again", "resource", f.store.opts.GroupResource)
			f.restart()
		case f.ctx.Err() == nil:
			if !failing {
				klog.ErrorS(err, "Cannot read the change log; watches wait", "resource", f.store.opts.GroupResource)
			}
			failing = true
			f.pause()
			continue
		}
		failing = false
	}
}

// logRequest asks for the changes after a revision, with the parts that watches need.
func (s *Store) logRequest(after int64) storage.LogRequest {
	return storage.LogRequest{After: after, Limit: followBatch, Read: storage.Read{Sections: bodyOnly.Sections, Terms: s.opts.Index != nil}}
}

func (f *follower) pause() {
	select {
	case <-time.After(followRetry):
	case <-f.ctx.Done():
	}
}

func (f *follower) position() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.revision
}

func (f *follower) deliver(changes []storage.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	events := f.store.newEvents(changes)
	for i := range changes {
		f.revision = changes[i].Revision
		for w := range f.watches {
			if w.covers(changes[i].Key) {
				w.push(events[i])
			}
		}
	}
	f.recent.add(events)
	for w := range f.watches {
		if w.opts.ProgressNotify {
			w.wakeUp()
		}
	}
}

// restart gives up the place in the log.
func (f *follower) restart() {
	window, err := f.store.window(f.ctx)
	if err != nil {
		f.pause()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision = window.Current
	f.recent.reset(window.Current)
	for w := range f.watches {
		w.fail(storage.ErrCompacted)
		delete(f.watches, w)
	}
}

// join adds w if its revision is known and it has seen all delivered changes. Otherwise w
// has to catch up first.
func (f *follower) join(w *watcher) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.revision < f.revision || !w.known {
		return false
	}
	f.watches[w] = struct{}{}
	return true
}

func (f *follower) leave(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watches, w)
}

func (f *follower) requestProgress() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watches {
		w.requestProgress()
	}
}

// idle returns the revision up to which w has seen everything, given that
// nothing is queued for it.
func (f *follower) idle(w *watcher) (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.revision, w.empty()
}

// covers reports whether the watch is about key.
func (w *watcher) covers(key string) bool {
	return key == w.key || (w.opts.Recursive && strings.HasPrefix(key, w.key))
}
