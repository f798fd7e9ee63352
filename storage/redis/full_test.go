package redis_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
	"tallyman/storage/storagetest"
)

// countCommands returns how often a server has run a command.
func countCommands(t *testing.T, server *redistest.Server, name string) int64 {
	t.Helper()
	for line := range strings.Lines(fmt.Sprint(server.Command(t, "INFO", "commandstats"))) {
		if calls, ok := strings.CutPrefix(line, "cmdstat_"+name+":calls="); ok {
			calls, _, _ = strings.Cut(calls, ",")
			return parse(t, calls)
		}
	}
	return 0
}

// TestFullServer: a server with maxmemory and noeviction refuses a commit that adds, as a
// whole; one that removes passes, with the writes that belong to it, until the server is
// empty.
func TestFullServer(t *testing.T) {
	server := redistest.Start(t, flavor, "--maxmemory", "20mb", "--maxmemory-policy", "noeviction")
	s := open(t, redis.Options{History: storage.HistoryBounds{MinAge: 1}}, server.Addr)
	random := rand.New(rand.NewPCG(1, 2))
	value := func() storage.Value {
		data := make([]byte, 100<<10)
		for i := range data {
			data[i] = byte(random.Uint32()) // does not compress
		}
		return storage.Body(data)
	}
	revisions := map[string]int64{}
	var full error
	for i := 0; full == nil && i < 1000; i++ {
		keys := []string{fmt.Sprintf("/a%03d", i), fmt.Sprintf("/b%03d", i)}
		r, err := s.Commit(t.Context(), storage.Mutation{Key: keys[0], Value: value()}, storage.Mutation{Key: keys[1], Value: value()})
		if full = err; err == nil {
			revisions[keys[0]], revisions[keys[1]] = r.Revisions[0], r.Revisions[1]
		}
	}
	if !errors.Is(full, storage.ErrFull) {
		t.Fatalf("after %d values of 100 KiB: %v", len(revisions), full)
	}
	if n := len(keysOf(t, s)); n != len(revisions) {
		t.Errorf("%d entries, but %d were acknowledged: a commit was made in part", n, len(revisions))
	}
	// Without its history the server is still over its limit.
	server.Command(t, "CONFIG", "SET", "maxmemory", "12mb")
	// A removal with a write that belongs to it.
	removal := storage.WithRemoval(t.Context())
	if r, err := s.Commit(removal, storage.Mutation{Operation: storage.Delete, Key: "/a000", Expect: revisions["/a000"]},
		storage.Mutation{Key: "/tombstone", Value: storage.Body([]byte("x"))}); err != nil || !r.Succeeded {
		t.Fatalf("a removal with a write: %+v, %v", r, err)
	}
	delete(revisions, "/a000")
	for key, revision := range revisions {
		r, err := s.Commit(t.Context(), storage.Mutation{Operation: storage.Delete, Key: key, Expect: revision})
		if err != nil || !r.Succeeded {
			t.Fatalf("%d entries are left: %+v, %v", len(keysOf(t, s)), r, err)
		}
	}
	if all := keysOf(t, s); len(all) != 1 || all[0] != "/tombstone" {
		t.Errorf("the server has %v", all)
	}
	eventually(t, "there is room again", func() error {
		_, err := s.Commit(context.Background(), storage.Mutation{Key: "/new", Value: value(), Expect: storage.AnyRevision})
		return err
	})
	lock, err := s.Lock(t.Context(), "a")
	if err != nil || !lock.Unlock() {
		t.Errorf("a lock: %v", err)
	}
}

func keysOf(t *testing.T, s *redis.Store) (keys []string) {
	t.Helper()
	for _, e := range storagetest.All(t, s, storage.ScanRequest{From: "/", To: "0", KeysOnly: true}) {
		keys = append(keys, e.Key)
	}
	return keys
}

// TestFullServerLocks: locks can be had of a full server, or nothing could be deleted.
func TestFullServerLocks(t *testing.T) {
	server := redistest.Start(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	put(t, s, "/a", "v", 0)
	server.Command(t, "CONFIG", "SET", "maxmemory", "1mb")
	if _, err := s.Commit(t.Context(), storage.Mutation{Key: "/b", Value: storage.Body([]byte("v"))}); !errors.Is(err, storage.ErrFull) {
		t.Fatalf("a commit to a full server: %v", err)
	}
	lock, err := s.Lock(t.Context(), "a")
	if err != nil || !lock.Unlock() {
		t.Errorf("a lock: %v", err)
	}
	if get(t, s, "/a") != "v" {
		t.Error("a read of a full server")
	}
}

// TestHugeLimit: for any limit, Redis is read in steps.
func TestHugeLimit(t *testing.T) {
	server := redistest.Start(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	const n = 5000
	storagetest.Fill(t, s, n, func(i int) storage.Mutation {
		return storage.Mutation{Key: fmt.Sprintf("/%d", i), Value: storage.Body([]byte("v"))}
	})
	server.Command(t, "CONFIG", "RESETSTAT")
	if _, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Limit: 1<<63 - 1, KeysOnly: true}); err != nil {
		t.Fatal(err)
	}
	if calls := countCommands(t, server, "zrangebylex"); calls < n/1000 {
		t.Errorf("%d members of the index were read by %d commands", n, calls)
	}
}

// TestEvictedPage: a page is not empty if there are more.
func TestEvictedPage(t *testing.T) {
	server := redistest.Any(t, flavor)
	o, _ := losses(redis.Options{})
	s := open(t, o, server.Addr)
	for i := range 40 {
		put(t, s, fmt.Sprintf("/k%02d", i), "v", 0)
	}
	for i := range 32 {
		server.Command(t, "DEL", fmt.Sprintf("{tallyman}:value:/k%02d", i))
	}
	r, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Limit: 4})
	if err != nil || len(r.Entries) == 0 || r.Entries[0].Key != "/k32" {
		t.Errorf("the first page after 32 evicted entries: %+v, %v", r, err)
	}
}

// TestManyProcesses: the history stays within its bounds however many processes commit,
// and while no replica takes the commits.
func TestManyProcesses(t *testing.T) {
	const most, processes, each = 100, 20, 50
	for name, replicas := range map[string]int{"20 processes": 0, "no replica": 1} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, flavor)
			o := redis.Options{History: storage.HistoryBounds{MinAge: 1, MaxEntries: most}, Replicas: replicas, DurabilityTimeout: 1e6}
			var stores []*redis.Store
			for range processes {
				stores = append(stores, open(t, o, server.Addr))
			}
			for i := range processes * each {
				_, err := stores[i%processes].Commit(t.Context(), storage.Mutation{Key: fmt.Sprintf("/k%d", i), Value: storage.Body([]byte("v"))})
				if (err != nil) != (replicas > 0) {
					t.Fatal(err)
				}
			}
			eventually(t, "the history is within its bounds", func() error {
				if n := server.Command(t, "XLEN", "{tallyman}:log"); n != int64(most) {
					return fmt.Errorf("it has %d changes", n)
				}
				return nil
			})
		})
	}
}

var writingTime = flag.Duration("writing", 5*time.Second, "time that the processes of TestWritersWithinBounds write")

// TestWritersWithinBounds has 20 processes write as fast as they can, for a long time by
// -writing. The history exceeds its bound by little, and ends within it.
func TestWritersWithinBounds(t *testing.T) {
	const processes, keys, most = 20, 50, 4 << 20
	server := redistest.Start(t, flavor)
	ctx, cancel := context.WithTimeout(t.Context(), *writingTime)
	defer cancel()
	var writers sync.WaitGroup
	var commits atomic.Int64
	var peak int64
	var stores []*redis.Store
	for range processes {
		stores = append(stores, open(t, redis.Options{History: storage.HistoryBounds{MaxBytes: most, MinAge: time.Hour}}, server.Addr))
	}
	for process, s := range stores {
		writers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(process), 5))
			value := make([]byte, 3000)
			for ctx.Err() == nil {
				for i := range value {
					value[i] = byte(random.Uint32())
				}
				key := fmt.Sprintf("/%d/%d", process, random.IntN(keys))
				_, err := s.Commit(ctx, storage.Mutation{Key: key, Expect: storage.AnyRevision, Value: storage.Body(value)})
				if err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				commits.Add(1)
			}
		})
	}
	size := func() int64 {
		n, _ := strconv.ParseInt(fmt.Sprint(server.Command(t, "HGET", "{tallyman}:meta", "logbytes")), 10, 64)
		return n
	}
	for ctx.Err() == nil {
		if commits.Load() > 0 { // there is no size before
			peak = max(peak, size())
		}
		time.Sleep(100 * time.Millisecond)
	}
	writers.Wait()
	if commits.Load() == 0 {
		t.Fatalf("no process could write within %s", *writingTime)
	}
	t.Logf("%d commits; the history has %d KiB, at most %d KiB", commits.Load(), size()>>10, peak>>10)
	eventually(t, "the history is within its bounds", func() error {
		if end := size(); end > most {
			return fmt.Errorf("it has %d bytes, want at most %d", end, most)
		}
		return nil
	})
	// Commits of many processes find most entries dropped already: the background trims once
	// a second.
	if peak > 4*most || peak == 0 {
		t.Errorf("the history had %d bytes, its bound is %d", peak, most)
	}
}
