package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
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

// lock is a storage.Lock.
type lock struct {
	store *Store
	keys  []string
	token string
	stop  context.CancelFunc // of the renewal
	// renewed has the result of the renewal, once it is stopped.
	renewed chan bool
	// given is set when a commit has given the locks back, kept if they were the holder's until then.
	given, kept atomic.Bool
}

// Lock takes the locks called names, all or none, which are one for all processes on this store, and
// keeps them until they are given back. It waits for another process, but not for ever. A process that
// dies gives its locks back after two seconds, one that hangs loses them then: locks make conflicts
// rare, and are no proof against them.
func (s *Store) Lock(ctx context.Context, names ...string) (storage.Lock, error) {
	l := s.newLock(names)
	err := waitForLock(ctx, func() (bool, error) { return s.takeLock(ctx, l.keys, l.token, lockTTL) })
	if err != nil {
		return nil, err
	}
	l.keep()
	return l, nil
}

// LockAndRead is Lock, and reads the entries under keys, nil for those that are not there, in the same round
// trip.
func (s *Store) LockAndRead(ctx context.Context, keys []string, names ...string) (_ storage.Lock, read map[string]*storage.Entry, err error) {
	if len(keys) == 0 {
		l, err := s.Lock(ctx, names...)
		return l, nil, err
	}
	l := s.newLock(names)
	err = waitForLock(ctx, func() (bool, error) {
		result, taken, err := s.getUnder(ctx, l, storage.GetRequest{Keys: keys})
		if err != nil || !taken {
			return false, err
		}
		read = make(map[string]*storage.Entry, len(keys))
		for i, key := range keys {
			read[key] = result.Entries[i]
		}
		return true, nil
	})
	if err != nil {
		return nil, nil, err
	}
	l.keep()
	return l, read, nil
}

func (s *Store) newLock(names []string) *lock {
	l := &lock{store: s, keys: make([]string, 0, len(names)), token: rand.Text(), renewed: make(chan bool, 1)}
	for _, name := range names {
		l.keys = append(l.keys, s.key("lock:"+name))
	}
	return l
}

// waitForLock calls take until it has the locks, or until it is too late.
func waitForLock(ctx context.Context, take func() (bool, error)) error {
	for deadline := time.Now().Add(lockWait); ; {
		taken, err := take()
		switch {
		case err != nil:
			return err
		case taken:
			return nil
		case time.Now().After(deadline):
			return errLocked
		}
		select {
		case <-time.After(lockRetry):
		case <-ctx.Done():
			return ctx.Err()
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
	return s.lockCall(ctx, lockScript, keys, token, ttl.Milliseconds(), 0)
}

func (s *Store) lockCall(ctx context.Context, script *goredis.Script, keys []string, args ...any) (ok bool, err error) {
	err = s.do(ctx, func(ctx context.Context) error {
		r, err := fromMaster(func() ([]any, error) { return script.Run(ctx, s.client, keys, args...).Slice() })
		ok = err == nil && reply(r).integer(0) == 1
		return err
	})
	return ok, err
}

// keep renews the locks until they are given back.
func (l *lock) keep() {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	taken := time.Now()
	go func() {
		held := true
		for held {
			pause(ctx, lockTTL/3)
			if ctx.Err() != nil {
				break
			}
			if ok, err := l.store.lockCall(ctx, lockScript, l.keys, l.token, lockTTL.Milliseconds(), 1); err == nil {
				held = ok && time.Since(taken) < lockTTL // later it may have been another's meanwhile
				taken = time.Now()
			}
		}
		l.renewed <- held
	}()
}

// give notes that a commit has given the locks back, if they were the holder's until then.
func (l *lock) give(kept bool) {
	l.kept.Store(kept)
	l.given.Store(true)
}

// Unlock implements storage.Lock.
func (l *lock) Unlock() bool {
	l.stop()
	held := <-l.renewed
	if l.given.Load() {
		return l.kept.Load()
	}
	// If this fails the locks go by themselves.
	ours, err := l.store.lockCall(context.Background(), unlockScript, l.keys, l.token)
	return held && err == nil && ours
}
