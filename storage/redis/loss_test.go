package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// losses returns Options that send the reasons of OnLoss.
func losses(o redis.Options) (redis.Options, <-chan string) {
	o.LossGrace = 300 * time.Millisecond
	reasons := make(chan string, 100)
	o.OnLoss = func(reason string) { reasons <- reason }
	return o, reasons
}

func wantLoss(t *testing.T, reasons <-chan string, want string) {
	t.Helper()
	select {
	case got := <-reasons:
		if !strings.Contains(got, want) {
			t.Errorf("told of %q, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("not told of the loss: want %q", want)
	}
}

// follow runs Log from the store's newest revision, and returns its error at the end.
func follow(t *testing.T, s *redis.Store) <-chan error {
	t.Helper()
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for revision := w.Current; ; {
			changes, err := s.Log(t.Context(), storage.LogRequest{After: revision})
			if err != nil && (errors.Is(err, storage.ErrCompacted) || t.Context().Err() != nil) {
				ended <- err
				return
			}
			for i := range changes {
				revision = changes[i].Revision
			}
			if err != nil {
				time.Sleep(20 * time.Millisecond)
			}
		}
	}()
	return ended
}

func wantCompacted(t *testing.T, ended <-chan error) {
	t.Helper()
	select {
	case err := <-ended:
		if !errors.Is(err, storage.ErrCompacted) {
			t.Errorf("the follower ended with %v, want ErrCompacted", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the follower was not told that history is lost")
	}
}

// TestOutage: while Redis is away calls fail, at once, and after it is back the
// store has everything that it acknowledged, and its followers go on.
func TestOutage(t *testing.T) {
	server := redistest.Start(t, flavor, redistest.Durable...)
	o, reasons := losses(redis.Options{})
	s := open(t, o, server.Addr)
	first := put(t, s, "/a", "1", 0)
	got := make(chan storage.Change, 1)
	go func() {
		for {
			changes, err := s.Log(t.Context(), storage.LogRequest{After: first})
			if err == nil {
				got <- changes[0]
				return
			}
			if errors.Is(err, storage.ErrCompacted) || t.Context().Err() != nil {
				t.Errorf("the follower ended with %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	server.Kill()
	eventually(t, "the outage is known", func() error {
		if _, err := s.Window(t.Context()); err == nil || !strings.Contains(err.Error(), "redis: ") {
			return fmt.Errorf("Window: %w", err)
		}
		return nil
	})
	for range 1000 { // as none of them is tried, this takes no time
		if _, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{}); err == nil || !strings.Contains(err.Error(), "redis") {
			t.Fatalf("Get without Redis: %v", err)
		}
	}
	server.Run(t)
	eventually(t, "the store is back", func() error {
		_, err := s.Window(t.Context())
		return err
	})
	if value := get(t, s, "/a"); value != "1" {
		t.Errorf("the acknowledged value is now %q", value)
	}
	second := put(t, s, "/a", "2", first)
	if change := <-got; change.Revision != second || change.Previous.Revision != first {
		t.Errorf("the follower went on with %+v", change)
	}
	if len(reasons) > 0 {
		t.Errorf("told of a loss: %s", <-reasons)
	}
}

// TestStartWithoutRedis: a process that starts before Redis does heals too.
func TestStartWithoutRedis(t *testing.T) {
	server := redistest.New(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	if _, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{}); err == nil {
		t.Error("Get without Redis succeeds")
	}
	server.Run(t)
	eventually(t, "the store is there", func() error {
		_, err := s.Window(t.Context())
		return err
	})
	put(t, s, "/a", "1", 0)
}

// TestEmptied: a Redis that comes back with nothing, or is flushed, is noticed,
// and serves on with revisions above those that were there.
func TestEmptied(t *testing.T) {
	server := redistest.Any(t, flavor)
	o, reasons := losses(redis.Options{CacheBytes: 1 << 20})
	s := open(t, o, server.Addr)
	other := open(t, redis.Options{LossGrace: time.Millisecond}, server.Addr)
	revision := put(t, s, "/a", "1", 0)
	ended := follow(t, s)
	server.Command(t, "FLUSHALL")
	eventually(t, "the store is there again", func() error { // this one makes it anew
		entry, _, err := storage.GetEntry(t.Context(), other, "/a", storage.Read{})
		if entry != nil {
			t.Fatalf("an empty Redis holds %q", entry.Value.Body())
		}
		return err
	})
	wantLoss(t, reasons, "Redis")
	wantCompacted(t, ended)
	eventually(t, "the store serves", func() error {
		entry, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{})
		if entry != nil {
			t.Fatalf("the store still shows %q", entry.Value.Body())
		}
		return err
	})
	if again := put(t, s, "/a", "2", 0); again <= revision {
		t.Errorf("revision %d after %d", again, revision)
	}
}

// TestLossyFailover: a replica that lacks the last writes becomes master. Followers are told,
// the loss is reported, and cached values are not trusted.
func TestLossyFailover(t *testing.T) {
	master, replica := redistest.Start(t, flavor), redistest.Start(t, flavor)
	redistest.Replicate(t, master, replica)
	w := &wire{}
	o, reasons := losses(redis.Options{CacheBytes: 1 << 20})
	s := open(t, w.options(master.Addr, o))
	kept := put(t, s, "/a", "kept", 0)
	eventually(t, "the replica has it", func() error {
		if n := replica.Command(t, "EXISTS", "{tallyman}:value:/a"); n != int64(1) {
			return errors.New("not yet")
		}
		return nil
	})
	replica.Command(t, "REPLICAOF", "NO", "ONE") // later changes do not reach it
	lost := put(t, s, "/a", "lost", kept)
	ended := follow(t, s)
	w.target.Store(&replica.Addr)
	master.Kill()
	w.cut()
	wantLoss(t, reasons, "lost acknowledged changes")
	wantCompacted(t, ended)
	eventually(t, "the store serves", func() error {
		_, err := s.Window(t.Context())
		return err
	})
	if value := get(t, s, "/a"); value != "kept" {
		t.Errorf("the new master has %q", value)
	}
	if _, err := s.Log(t.Context(), storage.LogRequest{After: lost}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from the lost revision: %v", err)
	}
	if next := put(t, s, "/a", "next", kept); next <= lost {
		t.Errorf("revision %d after %d", next, lost)
	}
	if _, err := s.Log(t.Context(), storage.LogRequest{After: lost}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from the lost revision, later: %v", err)
	}
}

// TestOldMaster: a server without acknowledged writes is not believed for a while, in which
// the real master may show.
func TestOldMaster(t *testing.T) {
	master, replica := redistest.Start(t, flavor), redistest.Start(t, flavor)
	redistest.Replicate(t, replica, master) // the replica has been promoted, and the master has come back
	w := &wire{}
	o, reasons := losses(redis.Options{CacheBytes: 1 << 20})
	o.LossGrace = time.Hour
	s := open(t, w.options(replica.Addr, o))
	first := put(t, s, "/a", "1", 0)
	eventually(t, "the old master has it", func() error {
		if n := master.Command(t, "EXISTS", "{tallyman}:value:/a"); n != int64(1) {
			return errors.New("not yet")
		}
		return nil
	})
	master.Command(t, "REPLICAOF", "NO", "ONE")
	put(t, s, "/a", "2", first)
	w.target.Store(&master.Addr)
	w.cut()
	for range 50 {
		if entry, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{}); err == nil && string(entry.Value.Body()) != "2" {
			t.Fatalf("the old master was believed: %q", entry.Value.Body())
		}
		// A connection that was being dialed when the others were cut leads to the real master.
		_, _ = s.Commit(t.Context(), storage.Mutation{Key: "/b", Value: storage.Body([]byte("lost"))})
		if n := master.Command(t, "EXISTS", "{tallyman}:value:/b"); n != int64(0) {
			t.Fatal("the old master was written to")
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.target.Store(&replica.Addr)
	w.cut()
	eventually(t, "the store goes on with the real master", func() error {
		_, err := s.Window(t.Context())
		return err
	})
	if value := get(t, s, "/a"); value != "2" || len(reasons) > 0 {
		t.Errorf("the store has %q, and %d losses", value, len(reasons))
	}
}

// TestEviction: an object that Redis evicted is absent and can be made again, and watching
// clients are told that history has a hole.
func TestEviction(t *testing.T) {
	server := redistest.Any(t, flavor)
	o, reasons := losses(redis.Options{})
	s := open(t, o, server.Addr)
	put(t, s, "/a", "1", 0)
	put(t, s, "/b", "1", 0)
	put(t, s, "/c", "1", 0)
	ended := follow(t, s)
	server.Command(t, "DEL", "{tallyman}:value:/b", "{tallyman}:value:/c")
	if value := get(t, s, "/b"); value != "" {
		t.Errorf("Get of what was evicted: %q", value)
	}
	put(t, s, "/b", "2", 0)
	wantLoss(t, reasons, "evicted /b")
	scan, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"})
	if err != nil || len(scan.Entries) != 2 || string(scan.Entries[1].Value.Body()) != "2" {
		t.Errorf("%+v, %v", scan, err)
	}
	wantLoss(t, reasons, "evicted /c")
	wantCompacted(t, ended)
	if scan, err = s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", KeysOnly: true, Count: true}); err != nil || scan.Count != 2 {
		t.Errorf("the index still has it: %+v, %v", scan, err)
	}
}

// failOnce fails one read of the store's window.
type failOnce struct {
	goredis.Hook
	failed atomic.Bool
}

// ProcessHook implements goredis.Hook.
func (f *failOnce) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		args := cmd.Args() // EVALSHA, hash, number of keys, keys
		if len(args) > 3 && fmt.Sprint(args[0], args[2], args[3]) == "evalsha1{tallyman}:meta" && f.failed.CompareAndSwap(false, true) {
			err := errors.New("the connection is lost")
			cmd.SetErr(err)
			return err
		}
		return next(ctx, cmd)
	}
}

// TestReplacedStoreIsReported: a failure right after the process found another store does
// not hide the loss.
func TestReplacedStoreIsReported(t *testing.T) {
	server := redistest.Any(t, flavor)
	o, reasons := losses(redis.Options{})
	s := open(t, o, server.Addr)
	put(t, s, "/a", "1", 0)
	server.Command(t, "FLUSHALL")
	open(t, redis.Options{}, server.Addr) // makes the other store
	fail := &failOnce{Hook: hook(func(context.Context, int) {})}
	s.AddOwnHook(fail)
	wantLoss(t, reasons, "emptied or replaced")
	if !fail.failed.Load() {
		t.Error("nothing failed")
	}
}

// TestIndexEvicted: without its indexes the store answers no scan and takes no commit until
// they are rebuilt from the values. The loss is reported once, by one of two processes.
func TestIndexEvicted(t *testing.T) {
	for name, test := range map[string]struct {
		keys    []string
		objects int
	}{
		"index of keys":           {[]string{"{tallyman}:index"}, 1200},
		"index of terms":          {[]string{"{tallyman}:terms"}, 1200},
		"both, and three objects": {[]string{"{tallyman}:index", "{tallyman}:terms", "{tallyman}:value:/0/1", "{tallyman}:value:/0/2", "{tallyman}:value:/0/3"}, 1197},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Any(t, flavor)
			o, reasons := losses(redis.Options{})
			s, other := open(t, o, server.Addr), open(t, o, server.Addr)
			completed := storage.FillRequest{Name: "/", Next: storage.IndexState{Version: "1", Complete: true}}
			if _, err := s.FillIndex(t.Context(), completed); err != nil {
				t.Fatal(err)
			}
			for i := range 20 {
				var mutations []storage.Mutation
				for n := range 60 {
					mutations = append(mutations, storage.Mutation{
						Key: fmt.Sprintf("/%d/%d", i, n), Value: storage.Body([]byte("x")), Terms: []storage.TermChange{{Group: "g", Terms: []string{"red"}}},
					})
				}
				if _, err := s.Commit(t.Context(), mutations...); err != nil {
					t.Fatal(err)
				}
			}
			for _, key := range test.keys {
				server.Command(t, "DEL", key)
			}
			if _, err := s.Commit(t.Context(), storage.Mutation{Key: "/new", Value: storage.Body([]byte("x"))}); err == nil {
				t.Error("a commit is taken") // the next would hide the eviction
			}
			scan := func(s *redis.Store, term string) (*storage.ScanResult, error) {
				return s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", KeysOnly: true, Limit: 5000, Term: term})
			}
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
				a, err := scan(s, "")
				b, otherErr := scan(other, "red")
				if err == nil && len(a.Entries) == test.objects && errors.Is(otherErr, storage.ErrNoIndex) != (otherErr == nil && len(b.Entries) == test.objects) {
					break
				}
				if err == nil && len(a.Entries) < test.objects || otherErr == nil && len(b.Entries) < test.objects || time.Now().After(deadline) {
					t.Fatalf("%d entries, %v; by term %v, %v", len(a.Entries), err, b, otherErr)
				}
			}
			wantLoss(t, reasons, fmt.Sprintf("an index of the store, and %d objects", 1200-test.objects))
			if len(reasons) > 0 {
				t.Errorf("reported again: %s", <-reasons)
			}
			put(t, s, "/new", "x", 0)
		})
	}
}

// TestDurability: a write that too few replicas have is not acknowledged.
func TestDurability(t *testing.T) {
	for name, o := range map[string]redis.Options{
		"WAIT":    {Replicas: 1},
		"WAITAOF": {Replicas: 1, AOF: true},
	} {
		t.Run(name, func(t *testing.T) {
			const flavor = "valkey-server"
			master, replica := redistest.Start(t, flavor, redistest.Durable...), redistest.Start(t, flavor, redistest.Durable...)
			redistest.Replicate(t, master, replica)
			o.DurabilityTimeout, o.Timeout = 5*time.Second, 10*time.Second
			s := open(t, o, master.Addr)
			revision := put(t, s, "/a", "1", 0)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			replica.Kill()
			o.DurabilityTimeout = 50 * time.Millisecond
			s = open(t, o, master.Addr)
			_, err := s.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body([]byte("2")), Expect: revision})
			if err == nil || !strings.Contains(err.Error(), "not as durable as configured") {
				t.Errorf("a write without a replica: %v", err)
			}
		})
	}
}

// TestSentinel: the store follows a fail-over by Sentinel.
func TestSentinel(t *testing.T) {
	master, replica := redistest.Start(t, flavor, redistest.Durable...), redistest.Start(t, flavor, redistest.Durable...)
	redistest.Replicate(t, master, replica)
	sentinels := redistest.StartSentinels(t, flavor, master)
	o := redis.Options{Replicas: 1}
	o.Client.MasterName = sentinels.MasterName
	before := open(t, o, sentinels.Addrs...)
	revision := put(t, before, "/a", "1", 0)
	o.Replicas = 0 // there will be none
	s := open(t, o, sentinels.Addrs...)
	master.Kill()
	eventually(t, "the store has failed over", func() error {
		r, err := s.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body([]byte("2")), Expect: revision})
		if err == nil && !r.Succeeded {
			return fmt.Errorf("%+v", r.Current)
		}
		return err
	})
	eventually(t, "the Sentinels know the new master", func() error {
		if got := sentinels.Master(t); got != fmt.Sprint(replica.Port) {
			return fmt.Errorf("it is at %s", got)
		}
		return nil
	})
	eventually(t, "the store serves", func() error { // a probe may still be on its way to the old master
		_, err := s.Window(t.Context())
		return err
	})
	if value := get(t, s, "/a"); value != "2" {
		t.Errorf("the store has %q", value)
	}
}
