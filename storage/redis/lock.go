package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

const (
	// lockTTL is how long a lock outlives a process that dies with it; what is
	// done under it takes less.
	lockTTL = 30 * time.Second
	// lockWait bounds the time that a lock is waited for.
	lockWait  = 10 * time.Second
	lockRetry = 20 * time.Millisecond
)

var errLocked = errors.New("another process holds the lock")

// unlockScript deletes a lock that is still the caller's.
var unlockScript = goredis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`)

// Lock takes the lock called name, which is one for all processes on this store.
// It waits for another process, but not for ever. A process that dies gives its
// locks back after half a minute, one that hangs loses them then: locks make
// conflicts rare, and are no proof against them.
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	key, token := s.key("lock:"+name), rand.Text()
	for deadline := time.Now().Add(lockWait); ; {
		var taken bool
		err := s.do(ctx, func(ctx context.Context) error {
			err := s.client.SetArgs(ctx, key, token, goredis.SetArgs{Mode: "NX", TTL: lockTTL}).Err()
			taken = err == nil
			if errors.Is(err, goredis.Nil) {
				return nil
			}
			return err
		})
		switch {
		case err != nil:
			return nil, err
		case taken:
			return func() { s.unlock(key, token) }, nil
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

func (s *Store) unlock(key, token string) {
	// If this fails the lock goes by itself.
	_ = s.do(context.Background(), func(ctx context.Context) error {
		return unlockScript.Run(ctx, s.client, []string{key}, token).Err()
	})
}
