package redis_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage"
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
				lock, err := stores[i%2].Lock(t.Context(), "a")
				if err != nil {
					t.Error(err)
					return
				}
				most.Store(max(most.Load(), holders.Add(1)))
				times.Add(1)
				time.Sleep(time.Millisecond)
				holders.Add(-1)
				lock.Unlock()
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 || times.Load() != 40 {
		t.Errorf("%d held the lock at once, %d times in all", most.Load(), times.Load())
	}
	lock, err := stores[0].Lock(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	server.Command(t, "SET", "{tallyman}:lock:b", "another's")
	lock.Unlock()
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
		lock, err := s.Lock(t.Context(), "warm")
		if err != nil || !lock.Unlock() {
			t.Fatal(err)
		}
	}
	text := "lock:a"
	w.dropReply.Store(&text)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // another's lock is waited for twice as long
	defer cancel()
	lock, err := s.Lock(ctx, "a")
	if err != nil {
		t.Fatalf("%v; nobody else wants it", err)
	}
	if !lock.Unlock() {
		t.Error("the lock was lost")
	}
	if w.dropped.Load() != 1 {
		t.Error("no answer was lost")
	}
}

// countTrips counts the round trips of calls with the context counted.
func countTrips(t *testing.T, s *redis.Store) (trips *atomic.Int64, counted context.Context) {
	t.Helper()
	trips = &atomic.Int64{}
	s.AddHook(hook(func(ctx context.Context, _ int) {
		if ctx.Value(countedKey{}) != nil { // and not the monitor's
			trips.Add(1)
		}
	}))
	return trips, context.WithValue(t.Context(), countedKey{}, true)
}

// lockHolder returns the token of the lock a, nil for none.
func lockHolder(t *testing.T, server *redistest.Server) any {
	t.Helper()
	return server.Command(t, "MGET", "{tallyman}:lock:a").([]any)[0]
}

// TestLockGivenBackByCommit: the commit of a Batch gives a lock back, in its round trip, and no other commit
// does. One that fails leaves it; a lock that was lost before is not the holder's, and stays another's.
func TestLockGivenBackByCommit(t *testing.T) {
	server := redistest.Any(t, flavor)
	s, other := open(t, redis.Options{}, server.Addr), open(t, redis.Options{}, server.Addr)
	trips, counted := countTrips(t, s)
	holder := func() any { return lockHolder(t, server) }
	put := func(key string, expect int64) storage.Mutation {
		return storage.Mutation{Key: key, Expect: expect, Value: storage.Body([]byte(key))}
	}
	for name, test := range map[string]struct {
		expect int64 // of the key, which is not there
		lost   bool
		free   bool // after the commit
		kept   bool
	}{
		"a commit":               {0, false, true, true},
		"a conflict":             {5, false, false, true},
		"a lock that was lost":   {0, true, false, false},
		"a conflict without one": {5, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			lock, err := s.Lock(t.Context(), "a", "b of "+name)
			if err != nil {
				t.Fatal(err)
			}
			ctx := storage.WithLock(counted, lock, nil)
			if r, err := s.Commit(ctx, put("/plain/"+name, 0)); err != nil || !r.Succeeded || holder() == nil {
				t.Fatalf("a commit that is not the batch's: %+v, %v; the lock is %v", r, err, holder())
			}
			if test.lost {
				server.Command(t, "SET", "{tallyman}:lock:a", "another's")
			}
			batch := &storage.Batch{}
			batch.Add(put("/batch/"+name, test.expect))
			trips.Store(0)
			committed, err := batch.Commit(ctx, s)
			if err != nil || committed != (test.expect == 0) {
				t.Fatal(committed, err)
			}
			if free := holder() == nil; free != test.free {
				t.Errorf("the lock is %v", holder())
			}
			if kept := lock.Unlock(); kept != test.kept {
				t.Errorf("kept: %t", kept)
			}
			if n := trips.Load(); n != 1 {
				t.Errorf("%d round trips for the commit", n)
			}
			if test.lost && holder() != "another's" {
				t.Errorf("the lock of another is %v", holder())
			}
			server.Command(t, "DEL", "{tallyman}:lock:a")
		})
	}
	if lock, err := other.Lock(t.Context(), "b of a commit"); err != nil || !lock.Unlock() {
		t.Errorf("the other lock is not given back: %v", err)
	}
}

// TestRenewalTakesNothing: a lock that a commit has given back is not taken again by a renewal.
func TestRenewalTakesNothing(t *testing.T) {
	server := redistest.Any(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	lock, err := s.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	batch := &storage.Batch{}
	batch.Add(storage.Mutation{Key: "/a", Value: storage.Body([]byte("a"))})
	if committed, err := batch.Commit(storage.WithLock(t.Context(), lock, nil), s); err != nil || !committed {
		t.Fatal(committed, err)
	}
	for range 12 { // longer than the interval of renewals
		time.Sleep(100 * time.Millisecond)
		if holder := lockHolder(t, server); holder != nil {
			t.Fatalf("the lock is %v again", holder)
		}
	}
	if !lock.Unlock() {
		t.Error("the lock was not kept until the commit")
	}
}

// TestLockAndRead: a lock is taken and entries are read in one round trip, which sees the commits of the holder
// before. Another process waits for the lock.
func TestLockAndRead(t *testing.T) {
	server := redistest.Any(t, flavor)
	s, other := open(t, redis.Options{}, server.Addr), open(t, redis.Options{}, server.Addr)
	trips, counted := countTrips(t, s)
	first, _, err := other.LockAndRead(t.Context(), []string{"/a"}, "a")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		lock, read, err := s.LockAndRead(counted, []string{"/a", "/b"}, "a", "b")
		switch {
		case err != nil:
		case read["/a"] == nil || string(read["/a"].Value.Body()) != "of the holder before" || read["/b"] != nil || len(read) != 2:
			err = fmt.Errorf("read %+v", read)
		case !lock.Unlock():
			err = errors.New("the lock was lost")
		}
		done <- err
	}()
	eventually(t, "the second process waits", func() error {
		if trips.Load() < 3 {
			return fmt.Errorf("%d round trips", trips.Load())
		}
		return nil
	})
	if r, err := other.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body([]byte("of the holder before"))}); err != nil || !r.Succeeded {
		t.Fatal(r, err)
	}
	if !first.Unlock() {
		t.Error("the first process has lost the lock")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	trips.Store(0)
	lock, read, err := s.LockAndRead(counted, []string{"/a", "/c"}, "a")
	if err != nil || trips.Load() != 1 || read["/a"] == nil {
		t.Errorf("%d round trips, %+v, %v", trips.Load(), read, err)
	}
	ctx := storage.WithLock(counted, lock, read)
	entries, err := storage.Prefetch(ctx, s, "/a", "/c")
	if c, known := entries["/c"]; err != nil || trips.Load() != 1 || entries["/a"] == nil || c != nil || !known {
		t.Errorf("%d round trips, %+v, %v", trips.Load(), entries, err)
	}
	if entries, err = storage.Prefetch(ctx, s, "/a"); err != nil || trips.Load() != 2 || entries["/a"] == nil {
		t.Errorf("a second time: %d round trips, %+v, %v", trips.Load(), entries, err)
	}
	if !lock.Unlock() {
		t.Error("the lock was lost")
	}
}
