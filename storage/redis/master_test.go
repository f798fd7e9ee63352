package redis_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// TestDemotedMaster: a master that was made a replica (a managed fail-over: the name
// moves, connections stay) is not read from any more, and the process finds the new one,
// which any new connection reaches.
func TestDemotedMaster(t *testing.T) {
	for name, connections := range map[string]int{"one connection": 1, "ten connections": 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			master, replica := redistest.Start(t, flavor), redistest.Start(t, flavor)
			redistest.Replicate(t, master, replica)
			w := &wire{}
			s := open(t, w.options(master.Addr, redis.Options{}))
			revision := put(t, s, "/a", "before", 0)
			eventually(t, "the replica has it", func() error {
				if n := replica.Command(t, "EXISTS", "{tallyman}:value:/a"); n != int64(1) {
					return errors.New("not yet")
				}
				return nil
			})
			var wg sync.WaitGroup
			for range connections { // fills the pool
				wg.Go(func() {
					for range 50 {
						_, _, _ = storage.GetEntry(t.Context(), s, "/a", storage.Read{})
					}
				})
			}
			wg.Wait()
			replica.Command(t, "REPLICAOF", "NO", "ONE")
			master.Command(t, "REPLICAOF", "127.0.0.1", 1) // demoted; it has yet to catch up with the new master
			w.target.Store(&replica.Addr)                  // the name is the new master's; open connections stay
			other := open(t, redis.Options{}, replica.Addr)
			good, want := 0, 100
			eventually(t, "reads go to the new master", func() error {
				latest := fmt.Sprint("after ", good)
				revision = put(t, other, "/a", latest, revision) // acknowledged by the new master
				entry, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{})
				if err != nil {
					return err
				}
				if got := string(entry.Value.Body()); got != latest {
					t.Fatalf("a read after a write that was acknowledged shows %q, want %q", got, latest)
				}
				if good++; good < want {
					return fmt.Errorf("%d reads were right", good)
				}
				return nil
			})
		})
	}
}

// TestRefusedWrites: a master that refuses writes, for want of disk or replicas, is read
// from all the same; a replica that answers then is not.
func TestRefusedWrites(t *testing.T) {
	for name, refuse := range map[string]func(t *testing.T, server *redistest.Server){
		"full disk": func(t *testing.T, server *redistest.Server) {
			server.Command(t, "CONFIG", "SET", "save", "3600 1")
			server.LoseDisk(t)
		},
		"no replica": func(t *testing.T, server *redistest.Server) {
			server.Command(t, "CONFIG", "SET", "min-replicas-to-write", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, flavor)
			w := &wire{}
			s := open(t, w.options(server.Addr, redis.Options{}))
			revision := put(t, s, "/a", "1", 0)
			refuse(t, server)
			eventually(t, "writes are refused", func() error {
				if _, err := s.Commit(t.Context(), storage.Mutation{Key: "/b", Value: storage.Body([]byte("1"))}); err == nil {
					_, _ = s.Commit(t.Context(), storage.Mutation{Operation: storage.Delete, Key: "/b", Expect: storage.AnyRevision})
					return errors.New("a commit succeeds")
				}
				return nil
			})
			until := time.Now().Add(3 * time.Second) // the monitor has looked by then
			for time.Now().Before(until) {
				if value := get(t, s, "/a"); value != "1" {
					t.Fatalf("a read shows %q", value)
				}
				if _, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "/aa", Term: ""}); err != nil {
					t.Fatal(err)
				}
				if changes, err := s.Log(t.Context(), storage.LogRequest{After: revision, NoWait: true}); err != nil {
					t.Fatal(changes, err)
				}
			}
			// After a lost connection, and in a process that starts now, it is the same.
			w.cut()
			eventually(t, "the store is read again", func() error {
				_, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{})
				return err
			})
			if value := get(t, open(t, redis.Options{}, server.Addr), "/a"); value != "1" {
				t.Errorf("another process reads %q", value)
			}
			if name == "no replica" {
				replica := redistest.Start(t, flavor)
				replica.Command(t, "REPLICAOF", "127.0.0.1", server.Port)
				server.Command(t, "CONFIG", "SET", "min-replicas-to-write", 0)
				put(t, s, "/b", "1", 0)
			}
		})
	}
}

// TestReadsWhileCommitsWait: commits that wait for a replica do not take the store away from
// readers, and share their waits.
func TestReadsWhileCommitsWait(t *testing.T) {
	server := redistest.Start(t, flavor) // no replica: each wait takes DurabilityTimeout
	o := redis.Options{Replicas: 1}
	o.Client.PoolSize = 4
	s := open(t, o, server.Addr)
	const writers = 200
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Commit(t.Context(), storage.Mutation{Key: fmt.Sprintf("/%d/%d", w, i), Value: storage.Body([]byte("v"))}); err == nil {
					t.Error("a commit without a replica is acknowledged")
				}
			}
		})
	}
	for range 300 {
		if _, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{}); err != nil {
			t.Errorf("Redis is there and idle, but a read fails: %v", err)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	commits := countCommands(t, server, "evalsha")
	if waits := countCommands(t, server, "wait"); waits*4 > commits {
		t.Errorf("%d waits for at most %d commits", waits, commits)
	}
}

// TestSecondTryIsAsDurable: a writer that finds an unacknowledged change made waits, too.
func TestSecondTryIsAsDurable(t *testing.T) {
	server, replica := redistest.Start(t, flavor), redistest.Start(t, flavor)
	s := open(t, redis.Options{Replicas: 1, DurabilityTimeout: 100 * time.Millisecond}, server.Addr)
	if _, err := s.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body([]byte("v"))}); err == nil {
		t.Fatal("the first try was acknowledged")
	}
	if get(t, s, "/a") != "v" {
		t.Fatal("the write is not in the master")
	}
	other := open(t, redis.Options{Replicas: 1, DurabilityTimeout: 100 * time.Millisecond}, server.Addr)
	for _, process := range []*redis.Store{s, other} {
		if err := process.Confirm(t.Context()); err == nil {
			t.Error("the second try would be acknowledged, and no replica has the write")
		}
	}
	redistest.Replicate(t, server, replica)
	eventually(t, "the replica has it", func() error { return other.Confirm(t.Context()) })
	if err := open(t, redis.Options{}, server.Addr).Confirm(t.Context()); err != nil {
		t.Errorf("where commits do not wait: %v", err)
	}
}
