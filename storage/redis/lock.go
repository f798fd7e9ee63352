package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

const (
	// lockTTL is the lifetime of a lock after its process dies. A live one renews it.
	lockTTL = 2 * time.Second
	// leaseTTL is that of a lease.
	leaseTTL = 30 * time.Second
	// lockWait bounds the time that a lock is waited for.
	lockWait  = 10 * time.Second
	lockRetry = 20 * time.Millisecond
)

var errLocked = errors.New("another process holds the lock")

// Lock takes the locks called names, all or none, which are one for all processes on this store, and
// keeps them until unlock, which reports whether they were kept all the time. It waits for
// another process, but not for ever. A process that dies gives its locks back after two
// seconds, one that hangs loses them then: locks make conflicts rare, and are no proof
// against them.
func (s *Store) Lock(ctx context.Context, names ...string) (unlock func() bool, err error) {
	keys, token := make([]string, 0, len(names)), rand.Text()
	for _, name := range names {
		keys = append(keys, s.key("lock:"+name))
	}
	for deadline := time.Now().Add(lockWait); ; {
		taken, err := s.takeLock(ctx, keys, token, lockTTL)
		switch {
		case err != nil:
			return nil, err
		case taken:
			return s.keepLock(keys, token), nil
		case time.Now().After(deadline):
			return nil, errLocked
		}
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Lease takes the lease called name for holder, or renews it, and reports whether holder has it
// for the next half minute. Processes that call themselves the same have it together.
func (s *Store) Lease(ctx context.Context, name, holder string) (held bool, err error) {
	return s.LeaseFor(ctx, name, holder, leaseTTL)
}

// LeaseFor is Lease for another time.
func (s *Store) LeaseFor(ctx context.Context, name, holder string, ttl time.Duration) (held bool, err error) {
	return s.takeLock(storage.WithBackground(ctx), []string{s.key("lease:" + name)}, holder, ttl)
}

// EndLease gives a lease back, if holder has it.
func (s *Store) EndLease(ctx context.Context, name, holder string) error {
	_, err := s.lockCall(ctx, unlockScript, []string{s.key("lease:" + name)}, holder)
	return err
}

// takeLock takes locks, or renews them.
func (s *Store) takeLock(ctx context.Context, keys []string, token string, ttl time.Duration) (taken bool, err error) {
	return s.lockCall(ctx, lockScript, keys, token, ttl.Milliseconds())
}

func (s *Store) lockCall(ctx context.Context, script *goredis.Script, keys []string, args ...any) (ok bool, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		r, err := fromMaster(func() ([]any, error) { return script.Run(ctx, s.client, keys, args...).Slice() })
		ok = err == nil && reply(r).integer(0) == 1
		return err
	})
	return ok, err
}

// keepLock renews locks until unlock is called.
func (s *Store) keepLock(keys []string, token string) (unlock func() bool) {
	ctx, cancel := context.WithCancel(context.Background())
	taken := time.Now()
	kept := make(chan bool, 1)
	go func() {
		held := true
		for held {
			pause(ctx, lockTTL/3)
			if ctx.Err() != nil {
				break
			}
			if ok, err := s.takeLock(ctx, keys, token, lockTTL); err == nil {
				held = ok && time.Since(taken) < lockTTL // later it may have been another's meanwhile
				taken = time.Now()
			}
		}
		kept <- held
	}()
	return func() bool {
		cancel()
		held := <-kept
		// If this fails the locks go by themselves.
		ours, err := s.lockCall(context.Background(), unlockScript, keys, token)
		return held && err == nil && ours
	}
}
