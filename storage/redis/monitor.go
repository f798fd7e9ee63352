package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/section"
)

const (
	// probeInterval is the interval of the monitor's probes.
	probeInterval = time.Second
	// coalesceTime is the pause after changes were read. It bounds the commands of each
	// process, and delays watch events by at most this time.
	coalesceTime = 15 * time.Millisecond
	// probeTimeout bounds one look.
	probeTimeout = 2 * time.Second
	// retryInterval is the pause between looks while Redis is away.
	retryInterval = 250 * time.Millisecond
)

// observe notes the newest revision that an answer showed, and wakes Log.
func (s *Store) observe(revision int64) {
	for {
		seen := s.seen.Load()
		if revision <= seen {
			return
		}
		if s.seen.CompareAndSwap(seen, revision) {
			s.notify()
			return
		}
	}
}

func (s *Store) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// nextChange returns a channel that is closed when there is something new.
func (s *Store) nextChange() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// monitor is the one goroutine that listens for changes, for any number of watches, and that
// notices when Redis goes away, comes back, and comes back with less than it had.
func (s *Store) monitor(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.probe(ctx); err != nil {
			s.down(err)
			s.reload(ctx)
			pause(ctx, retryInterval)
			continue
		}
		s.up()
		s.attend(ctx)
		for next := time.Now().Add(probeInterval); time.Now().Before(next) && ctx.Err() == nil; {
			s.listen(ctx, time.Until(next))
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// listen waits for changes, at most for the given time, and adds them to the tail. The next
// probe reports failures.
func (s *Store) listen(ctx context.Context, wait time.Duration) {
	bounded, cancel := context.WithTimeout(ctx, wait+probeTimeout)
	defer cancel()
	after := s.tail.end()
	if after == 0 {
		after = s.seen.Load()
		s.tail.reset(after)
	}
	streams, err := s.own.XRead(bounded, &goredis.XReadArgs{
		Streams: []string{s.log, digits(after) + "-0"}, Count: logBatch, Block: max(wait, time.Millisecond),
	}).Result()
	if err != nil {
		if !errors.Is(err, goredis.Nil) { // nil: there was no change
			pause(ctx, retryInterval/4)
		}
		return
	}
	newest := int64(0)
	for _, stream := range streams {
		newest = s.tail.add(stream.Messages)
	}
	s.observe(newest)
	s.notify() // seen may have moved before, by this process' own commits
	pause(ctx, coalesceTime)
}

// probe asks Redis whether it is there and has lost nothing.
func (s *Store) probe(ctx context.Context) error {
	if s.outage.Load() != nil {
		ctx, cancel := context.WithTimeout(ctx, 2*probeTimeout)
		defer cancel()
		if err := s.connect(ctx); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	seen := s.seen.Load()
	r, err := s.readBy(ctx, s.own, logScript, []string{s.meta, s.log}, formatAny, digits(seen), 1, 0)
	switch {
	case errors.Is(err, errEmpty):
		if err := s.graceLeft(); err != nil {
			return err
		}
		_, err := s.create(ctx)
		return err
	case errors.Is(err, storage.ErrCompacted):
		return s.reposition(ctx, seen)
	case err != nil:
		return err
	}
	s.staleSince = time.Time{}
	s.observe(r.integer(0))
	return nil
}

// reposition is for a log that does not hold the last revision seen. Either the revision was
// dropped in the ordinary way while Redis was out of sight, or this is not the master (an old
// one that has come back is not told so at once), or it is lost: Options.LossGrace
// distinguishes the two.
func (s *Store) reposition(ctx context.Context, seen int64) error {
	replaced, err := s.create(ctx)
	if err != nil || replaced {
		return err
	}
	window, err := s.readWindow(ctx)
	if err != nil {
		return err
	}
	if s.seen.Load() != seen {
		return nil // this process has seen more meanwhile: the next probe asks for that
	}
	isLoss := seen != 0 && seen >= window.Compacted
	if isLoss {
		if err := s.graceLeft(); err != nil {
			return err
		}
	}
	s.staleSince = time.Time{}
	s.restart(window.Current)
	if isLoss {
		s.lost(fmt.Sprintf("Redis lost acknowledged changes: revision %d is gone, the store goes on from %d", seen, window.Current))
	}
	return nil
}

// readWindow reads the window of the store as it is, even if it is older than seen.
func (s *Store) readWindow(ctx context.Context) (storage.Window, error) {
	r, err := s.readBy(ctx, s.own, windowScript, []string{s.meta}, formatAny, 0)
	if err != nil {
		return storage.Window{}, err
	}
	return storage.Window{Compacted: r.integer(0), Current: r.integer(1)}, nil
}

// graceLeft is for a server that lacks revisions that were seen. It fails for as long as that
// may be an old master.
func (s *Store) graceLeft() error {
	if s.staleSince.IsZero() {
		s.staleSince = time.Now()
	}
	if time.Since(s.staleSince) < s.opts.LossGrace {
		return errStale
	}
	s.staleSince = time.Time{}
	return nil
}

// restart resets the state of this process, for another store. Waiting callers look again, and
// find that their place is gone.
func (s *Store) restart(current int64) {
	s.seen.Store(current)
	s.cache.Clear()
	s.history.clear()
	s.tail.reset(0)
	s.notify()
}

// connect checks the server, and makes the store if there is none and never was.
func (s *Store) connect(ctx context.Context) error {
	if err := s.check(ctx); err != nil || s.wasThere() {
		return err
	}
	_, err := s.create(ctx)
	return err
}

// wasThere reports whether this process has seen the store.
func (s *Store) wasThere() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id != ""
}

// create makes the store if there is none. It reports whether the store is
// another one than it was.
func (s *Store) create(ctx context.Context) (replaced bool, err error) {
	r, err := openScript.run(func(run runner) (reply, error) {
		return fromMaster(func() ([]any, error) {
			return run(ctx, s.own, []string{s.meta, s.log}, knownFormat, rand.Text(), s.clock()).Slice()
		})
	})
	if err != nil {
		return false, err
	}
	answer := r
	if err := s.setFormat(answer.text(0)); err != nil {
		return false, err
	}
	before := s.swapID("", answer.text(1))
	if before == "" || before == answer.text(1) {
		return false, nil
	}
	window, err := s.readWindow(ctx)
	if err != nil {
		return true, err // the next look finds the other id again
	}
	s.swapID(before, answer.text(1))
	s.restart(window.Current)
	s.lost("the store in Redis was emptied or replaced")
	return true, nil
}

// swapID sets the id of the store if it is old, and returns the id before.
func (s *Store) swapID(old, fresh string) (before string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if before = s.id; before == old {
		s.id, s.cutter = fresh, section.NewCutter([]byte(fresh))
	}
	return before
}

// lost reports that content is gone.
func (s *Store) lost(reason string) {
	lossTotal.Inc()
	slog.Error("content is missing from the image store; it is derived again from the registry, additions of clients are lost", "reason", reason)
	go s.opts.OnLoss(reason)
}

// down makes calls fail at once until up.
func (s *Store) down(err error) {
	if s.isClosed() {
		return
	}
	available.Set(0)
	err = fmt.Errorf("redis: %w", err)
	if s.outage.Swap(&outage{err}) == nil {
		slog.Error("the image store in Redis is not available", "err", err)
	}
}

func (s *Store) up() {
	available.Set(1)
	if s.outage.Swap(nil) != nil {
		slog.Info("the image store in Redis is available")
		s.notify()
	}
}
