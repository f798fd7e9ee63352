package redis

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

// Commit implements storage.Backend.
func (s *Store) Commit(ctx context.Context, m storage.Mutation) (*storage.CommitResult, error) {
	if m.Key == "" || strings.Contains(m.Key, "\x00") || (m.Value == nil && !m.Delete) {
		return nil, errors.New("redis: a commit needs a key without NUL, and a value")
	}
	r, err := s.commit(ctx, m)
	if err != nil {
		return nil, err
	}
	result := &storage.CommitResult{Succeeded: r.integer(0) == 1, Revision: r.integer(1)}
	s.observe(result.Revision)
	if result.Succeeded {
		s.setExpired(r.list(2))
		if !m.Delete {
			s.cache.add(m.Key, version{result.Revision, bytes.Clone(m.Value)})
		}
		return result, nil
	}
	if current := r.text(2); current != "" {
		revision, value, err := decode(current)
		if err != nil {
			return nil, fmt.Errorf("redis: %s: %w", s.objectKey(m.Key), err)
		}
		result.Current = &storage.Entry{Key: m.Key, Value: value, Revision: revision}
	}
	return result, nil
}

// commit runs the script. A retry, ours or the client's, carries the same token,
// by which the script knows a commit that it has made already.
func (s *Store) commit(ctx context.Context, m storage.Mutation) (reply, error) {
	keys := []string{s.meta, s.index, s.log, s.objectKey(m.Key), s.versionKey(m.Expect), s.outcomeKey(rand.Text())}
	value := []byte{}
	if !m.Delete {
		value = encode(m.Value)
	}
	args := []any{
		formatVersion, m.Key, digits(m.Expect), value, len(m.Value), s.clock(),
		s.opts.LogMaxEntries, s.opts.LogMaxAge.Microseconds(), (s.opts.Timeout + outcomeSpare).Milliseconds(),
	}
	for _, e := range s.takeExpired() {
		keys, args = append(keys, s.versionKey(e.previous)), append(args, digits(e.revision))
	}
	if s.opts.Replicas == 0 && !s.opts.AOF {
		return s.run(ctx, commitScript, keys, args...)
	}
	return s.script(ctx, s.durably, keys, args...)
}

func (s *Store) takeExpired() []logEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	expired := s.expired
	s.expired = nil
	return expired
}

func (s *Store) setExpired(pairs reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = nil
	for i := 0; i+1 < len(pairs); i += 2 {
		s.expired = append(s.expired, logEntry{revision: pairs.integer(i), previous: pairs.integer(i + 1)})
	}
}

// durably is a runner for the commit script that waits as Options say. WAIT is
// about the writes of its own connection, so both go to one node in one pipeline.
func (s *Store) durably(ctx context.Context, _ goredis.Scripter, keys []string, args ...any) *goredis.Cmd {
	var commit *goredis.Cmd
	const tries = 3 // a Cluster may have moved the slot
	for range tries {
		node, err := s.node(ctx)
		if err != nil {
			failed := goredis.NewCmd(ctx)
			failed.SetErr(err)
			return failed
		}
		pipe := node.Pipeline()
		commit = commitScript.Eval(ctx, pipe, keys, args...)
		wait := s.wait(ctx, pipe)
		_, err = pipe.Exec(ctx)
		if isMoved(commit.Err()) {
			s.reload(ctx)
			continue
		}
		if commit.Err() == nil && err == nil {
			err = s.enough(wait)
		}
		if commit.Err() == nil && err != nil {
			commit.SetErr(err)
		}
		return commit
	}
	return commit
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

// enough says whether what WAIT or WAITAOF replied is what was asked for.
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

// Compact implements storage.Backend.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	const batch = 100
	for {
		var first []goredis.XMessage
		err := s.do(ctx, func(ctx context.Context) (err error) {
			first, err = s.client.XRangeN(ctx, s.log, "-", digits(revision)+"-0", batch).Result()
			return err
		})
		if err != nil {
			return err
		}
		keys, args := []string{s.meta, s.log}, []any{formatVersion, digits(revision)}
		for _, message := range first {
			e, err := messageEntry(message)
			if err != nil {
				return err
			}
			keys, args = append(keys, s.versionKey(e.previous)), append(args, digits(e.revision))
		}
		r, err := s.run(ctx, compactScript, keys, args...)
		if err != nil || r.integer(0) == 1 {
			return err
		}
	}
}
