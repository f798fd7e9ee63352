package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// durableBatch is the maximum number of commits that share a WAIT, durableBatches the
	// number of concurrent WAITs.
	durableBatch   = 64
	durableBatches = 3
)

// durableCommit is a queued commit. WAIT covers the writes of its own connection, so a
// batch of commits and its WAIT are one pipeline.
type durableCommit struct {
	script *goredis.Script
	keys   []string
	args   []any
	reply  []any
	result chan error // buffered, so that a caller who has left blocks nobody
}

// waits reports whether commits wait for replicas or the append-only file.
func (s *Store) waits() bool { return s.opts.Replicas > 0 || s.opts.AOF }

// Confirm implements storage.Backend. Replication is in order: earlier commits are durable
// once a later write is.
func (s *Store) Confirm(ctx context.Context) error {
	if !s.waits() {
		return nil
	}
	_, err := s.runDurably(ctx, confirmScript, []string{s.meta, s.outcomeKey(rand.Text())}, formatAny, outcomeSpare.Milliseconds())
	return err
}

// runDurably is run for commits that wait for replicas or the append-only file.
func (s *Store) runDurably(ctx context.Context, script *goredis.Script, keys []string, args ...any) (reply, error) {
	c := &durableCommit{script: script, keys: keys, args: append(args, digits(s.seen.Load())), result: make(chan error, 1)}
	err := s.do(ctx, func(ctx context.Context) error {
		select {
		case s.durable <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case err := <-c.result:
			if errors.Is(err, errEmpty) {
				return errStale
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return nil, err
	}
	return c.reply, nil
}

// keepCommitting commits queued commits in batches.
func (s *Store) keepCommitting(ctx context.Context) {
	for {
		var batch []*durableCommit
		select {
		case c := <-s.durable:
			batch = append(batch, c)
		case <-ctx.Done():
			return
		}
	gather:
		for len(batch) < durableBatch {
			select {
			case c := <-s.durable:
				batch = append(batch, c)
			default:
				break gather
			}
		}
		s.commitTogether(ctx, batch)
	}
}

// commitTogether commits a batch. It retries commits that the server rejected because the
// script was unknown, the server is a replica, or the slot has moved.
func (s *Store) commitTogether(ctx context.Context, batch []*durableCommit) {
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	const tries = 10
	var err error
	for try := 0; len(batch) > 0 && try < tries; try++ {
		batch, err = s.pipeline(ctx, batch)
	}
	for _, c := range batch {
		c.result <- err
	}
}

// pipeline sends a batch and a WAIT to one node in one pipeline. It returns the commits to
// try again, and why.
func (s *Store) pipeline(ctx context.Context, batch []*durableCommit) (again []*durableCommit, reason error) {
	node, err := s.node(ctx)
	if err != nil {
		return batch, err
	}
	pipe := node.Pipeline()
	commands := make([]*goredis.Cmd, len(batch))
	for i, c := range batch {
		commands[i] = c.script.EvalSha(ctx, pipe, c.keys, c.args...)
	}
	wait := s.wait(ctx, pipe)
	_, _ = pipe.Exec(ctx) // each command has its own error
	durable := s.enough(wait)
	for i, c := range batch {
		var err error
		c.reply, err = commands[i].Slice()
		switch {
		case goredis.HasErrorPrefix(err, "NOSCRIPT"):
			again, reason = append(again, c), err
			if err := c.script.Load(ctx, node).Err(); err != nil {
				reason = err
			}
		case isReplica(err):
			again, reason = append(again, c), err
		case isMoved(err):
			again, reason = append(again, c), err
			s.reload(ctx)
		case err != nil:
			c.result <- scriptError(err)
		default:
			c.result <- durable
		}
	}
	return again, reason
}

// reload makes the client of a Cluster look where the slots are now. It does so
// in the background.
func (s *Store) reload(ctx context.Context) {
	if cluster, ok := s.client.(*goredis.ClusterClient); ok {
		cluster.ReloadState(ctx)
	}
}

// node returns the client of the master that has the keys.
func (s *Store) node(ctx context.Context) (goredis.UniversalClient, error) {
	if cluster, ok := s.client.(*goredis.ClusterClient); ok {
		return cluster.MasterForKey(ctx, s.meta)
	}
	return s.client, nil
}

func (s *Store) wait(ctx context.Context, pipe goredis.Pipeliner) *goredis.Cmd {
	timeout := s.opts.DurabilityTimeout.Milliseconds()
	if s.opts.AOF {
		return pipe.Do(ctx, "WAITAOF", 1, s.opts.Replicas, timeout)
	}
	return pipe.Do(ctx, "WAIT", s.opts.Replicas, timeout)
}

// enough reports whether the reply of WAIT or WAITAOF is as durable as configured.
func (s *Store) enough(wait *goredis.Cmd) error {
	if !s.opts.AOF {
		if n, err := wait.Int(); err != nil || n >= s.opts.Replicas {
			return err
		}
	} else {
		n, err := wait.Int64Slice()
		if err != nil || (len(n) == 2 && n[0] >= 1 && n[1] >= int64(s.opts.Replicas)) {
			return err
		}
	}
	return fmt.Errorf("the write is not as durable as configured after %s: want %d replicas, append-only file %v, but got %v",
		s.opts.DurabilityTimeout, s.opts.Replicas, s.opts.AOF, wait.Val())
}

func isMoved(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), "MOVED ") || strings.HasPrefix(err.Error(), "ASK "))
}
