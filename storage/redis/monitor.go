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
)

const (
	// listenFor is how long the monitor waits for a change before it looks
	// whether all is well.
	listenFor = time.Second
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
			s.ring()
			return
		}
	}
}

func (s *Store) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.bell)
	s.bell = make(chan struct{})
}

// nextChange returns a channel that is closed when there is something new.
func (s *Store) nextChange() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bell
}

// monitor is the one goroutine that listens for changes, whatever the number of
// watches, and that finds out when Redis goes away, comes back, and comes back
// with less than it had.
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
		s.listen(ctx)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// listen waits until there is a change, for listenFor at most. Its failures show
// at the next probe.
func (s *Store) listen(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, listenFor+probeTimeout)
	defer cancel()
	streams, err := s.client.XRead(ctx, &goredis.XReadArgs{
		Streams: []string{s.log, digits(s.seen.Load()) + "-0"}, Count: 1, Block: listenFor,
	}).Result()
	if err != nil && !errors.Is(err, goredis.Nil) { // nil: there was no change
		pause(ctx, retryInterval/4)
	}
	for _, stream := range streams {
		for _, message := range stream.Messages {
			if revision, err := messageRevision(message); err == nil {
				s.observe(revision)
			}
		}
	}
}

// probe asks Redis whether it is there and still has what it had.
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
	r, err := logScript.RunRO(ctx, s.client, []string{s.meta, s.log}, formatAny, digits(seen), 1, 0).Slice()
	err = scriptError(err)
	switch {
	case errors.Is(err, errEmpty):
		if err := s.patience(); err != nil {
			return err
		}
		_, err := s.create(ctx)
		return err
	case errors.Is(err, storage.ErrCompacted):
		return s.reposition(ctx, seen)
	case err != nil:
		return err
	}
	s.behind = time.Time{}
	s.observe(reply(r).integer(0))
	return nil
}

// reposition is for a log that does not hold the last revision seen. Either that
// was dropped from it in the ordinary way while Redis was out of sight, or this is
// not the master (an old one that has come back is not told so at once), or it is
// lost: which of the two, Options.LossGrace tells.
func (s *Store) reposition(ctx context.Context, seen int64) error {
	replaced, err := s.create(ctx)
	if err != nil || replaced {
		return err
	}
	window, err := s.believe(ctx)
	if err != nil {
		return err
	}
	isLoss := seen != 0 && seen >= window.Compacted
	if isLoss {
		if err := s.patience(); err != nil {
			return err
		}
	}
	s.behind = time.Time{}
	s.restart(window.Current)
	if isLoss {
		s.lost(fmt.Sprintf("Redis lost acknowledged changes: revision %d is gone, the store goes on from %d", seen, window.Current))
	}
	return nil
}

// believe reads the window of the store as it is, be it behind what was seen.
func (s *Store) believe(ctx context.Context) (storage.Window, error) {
	r, err := windowScript.RunRO(ctx, s.client, []string{s.meta}, formatAny, 0).Slice()
	if err != nil {
		return storage.Window{}, scriptError(err)
	}
	return storage.Window{Compacted: reply(r).integer(0), Current: reply(r).integer(1)}, nil
}

// patience is for a server that lacks what was seen. It fails for as long as that
// may be an old master.
func (s *Store) patience() error {
	if s.behind.IsZero() {
		s.behind = time.Now()
	}
	if time.Since(s.behind) < s.opts.LossGrace {
		return errStale
	}
	s.behind = time.Time{}
	return nil
}

// restart forgets what is known of the store: it is not the one it was. Those
// who wait for changes look, and find that their place is gone.
func (s *Store) restart(current int64) {
	s.seen.Store(current)
	s.cache.clear()
	s.history.clear()
	s.ring()
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
	r, err := openScript.Run(ctx, s.client, []string{s.meta, s.log}, newFormat, rand.Text(), s.clock()).Slice()
	if err != nil {
		return false, err
	}
	answer := reply(r)
	switch format := answer.text(0); format {
	case oldFormat:
		s.format.Store(1)
	case newFormat:
		s.format.Store(2)
	default:
		return false, formatError(format)
	}
	s.mu.Lock()
	before := s.id
	s.id = answer.text(1)
	s.mu.Unlock()
	if before == "" || before == answer.text(1) {
		return false, nil
	}
	window, err := s.believe(ctx)
	if err != nil {
		return true, err
	}
	s.restart(window.Current)
	s.lost("the store in Redis was emptied or replaced")
	return true, nil
}

// lost reports that content is gone.
func (s *Store) lost(reason string) {
	lossTotal.Inc()
	slog.Error("content is missing from the image store; it is derived again from the registry, what clients added is lost", "reason", reason)
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
		s.ring()
	}
}
