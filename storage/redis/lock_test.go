package redis_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// TestLock: one holder at a time, over all processes; whose lock has run out does
// not take another's away.
func TestLock(t *testing.T) {
	server := redistest.Any(t, flavor)
	stores := []*redis.Store{open(t, redis.Options{}, server.Addr), open(t, redis.Options{}, server.Addr)}
	var wg sync.WaitGroup
	var holders, most, times atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				unlock, err := stores[i%2].Lock(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), holders.Add(1)))
				times.Add(1)
				time.Sleep(time.Millisecond)
				holders.Add(-1)
				unlock()
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 || times.Load() != 40 {
		t.Errorf("%d held the lock at once, %d times in all", most.Load(), times.Load())
	}
	unlock, err := stores[0].Lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	server.Command(t, "SET", "{tallyman}:lock:b", "another's")
	unlock()
	if got := server.Command(t, "GET", "{tallyman}:lock:b"); got != "another's" {
		t.Errorf("the lock of another is now %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := stores[1].Lock(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lock that is held: %v", err)
	}
	server.Kill()
	eventually(t, "a lock without Redis fails", func() error {
		if _, err := stores[0].Lock(t.Context(), "c"); err == nil {
			return errors.New("it does not")
		}
		return nil
	})
}

// TestLease: a lease is the holder's, over all processes, until it is given back or runs out.
func TestLease(t *testing.T) {
	server := redistest.Any(t, flavor)
	a, b := open(t, redis.Options{}, server.Addr), open(t, redis.Options{}, server.Addr)
	lease := func(s *redis.Store, holder string, want bool) {
		t.Helper()
		if held, err := s.Lease(t.Context(), "l", holder); err != nil || held != want {
			t.Errorf("%s has the lease: %v, %v; want %v", holder, held, err, want)
		}
	}
	lease(a, "x", true)
	lease(b, "y", false)
	lease(b, "x", true) // another process of the same name
	lease(a, "x", true)
	if ttl, ok := server.Command(t, "PTTL", "{tallyman}:lease:l").(int64); !ok || ttl <= 0 || ttl > 30_000 {
		t.Errorf("the lease ends after %v ms", ttl)
	}
	if err := b.EndLease(t.Context(), "l", "y"); err != nil { // which does not have it
		t.Error(err)
	}
	lease(b, "y", false)
	if err := a.EndLease(t.Context(), "l", "x"); err != nil {
		t.Error(err)
	}
	lease(b, "y", true)
	lease(a, "x", false)
}

// TestLockLostAnswer: a lock is taken whose first answer got lost.
func TestLockLostAnswer(t *testing.T) {
	w := &wire{}
	s := open(t, w.options(redistest.Any(t, flavor).Addr, redis.Options{}))
	for range 2 { // the script is known to the server by the second time
		unlock, err := s.Lock(t.Context(), "warm")
		if err != nil || !unlock() {
			t.Fatal(err)
		}
	}
	text := "lock:a"
	w.dropReply.Store(&text)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // another's lock is waited for twice as long
	defer cancel()
	unlock, err := s.Lock(ctx, "a")
	if err != nil {
		t.Fatalf("%v; nobody else wants it", err)
	}
	if !unlock() {
		t.Error("the lock was lost")
	}
	if w.dropped.Load() != 1 {
		t.Error("no answer was lost")
	}
}
