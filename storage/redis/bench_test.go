package redis_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// BenchmarkCache reads 1 000 values of 8 KB with the cache and without it, in turn
// on one server, and reports how many times faster the first is.
func BenchmarkCache(b *testing.B) {
	addr := redistest.Start(b, flavor).Addr
	openBench := func(cache int64) *redis.Store {
		s, err := redis.Open(b.Context(), redis.Options{Client: goredis.UniversalOptions{Addrs: []string{addr}}, CacheBytes: cache})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		return s
	}
	cached, plain := openBench(64<<20), openBench(0)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 1000 {
		value := make([]byte, 0, 8192)
		for len(value) < 8000 {
			value = fmt.Appendf(value, `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%016x"},`, random.Uint64())
		}
		if _, err := plain.Commit(b.Context(), storage.Mutation{Key: fmt.Sprintf("/images/%d", i), Value: storage.Body(value)}); err != nil {
			b.Fatal(err)
		}
	}
	for name, read := range map[string]func(*redis.Store) error{
		"get": func(s *redis.Store) error {
			_, _, err := storage.GetEntry(b.Context(), s, "/images/7", storage.Read{})
			return err
		},
		"scan": func(s *redis.Store) error {
			_, err := s.Scan(b.Context(), storage.ScanRequest{From: "/images/", To: "/images0"})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			var with, without time.Duration
			for b.Loop() {
				for s, total := range map[*redis.Store]*time.Duration{cached: &with, plain: &without} {
					start := time.Now()
					if err := read(s); err != nil {
						b.Fatal(err)
					}
					*total += time.Since(start)
				}
			}
			b.ReportMetric(float64(without)/float64(with), "times-faster")
		})
	}
}

// BenchmarkFollowers commits 300 keys a second to a store that 20 processes follow with
// values, and reports the commands of all of them for each commit, and the share of
// Redis' thread that they take.
func BenchmarkFollowers(b *testing.B) {
	const processes, rate = 20, 300
	server := redistest.Start(b, flavor)
	var sent atomic.Int64
	count := hook(func(_ context.Context, commands int) { sent.Add(int64(commands)) })
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	var stores []*redis.Store
	for range processes {
		s, err := redis.Open(b.Context(), redis.Options{Client: goredis.UniversalOptions{Addrs: []string{server.Addr}}, CacheBytes: 64 << 20})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		s.AddHook(count)
		s.AddOwnHook(count)
		stores = append(stores, s)
		w, err := s.Window(ctx)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			for after := w.Current; ctx.Err() == nil; {
				changes, err := s.Log(ctx, storage.LogRequest{After: after, Limit: 500})
				if err == nil {
					after = changes[len(changes)-1].Revision
				}
			}
		})
	}
	value := []byte(strings.Repeat("compressible ", 500))
	before, cpu, start := sent.Load(), cpuTime(b, server), time.Now()
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	commits := 0
	for b.Loop() {
		<-tick.C
		if _, err := stores[commits%processes].Commit(ctx, storage.Mutation{Key: fmt.Sprintf("/images/%d", commits%1000), Value: storage.Body(value), Expect: storage.AnyRevision}); err != nil {
			b.Fatal(err)
		}
		commits++
	}
	b.ReportMetric(float64(sent.Load()-before)/float64(commits), "commands/commit")
	b.ReportMetric(100*(cpuTime(b, server)-cpu)/time.Since(start).Seconds(), "%-of-Redis")
	b.ReportMetric(float64(commits)/time.Since(start).Seconds(), "commits/s")
	cancel()
	wg.Wait()
}

// cpuTime returns the seconds that the main thread of a server has worked.
func cpuTime(b *testing.B, server *redistest.Server) float64 {
	b.Helper()
	sum := 0.0
	for line := range strings.Lines(fmt.Sprint(server.Command(b, "INFO", "cpu"))) {
		for _, name := range []string{"used_cpu_sys_main_thread:", "used_cpu_user_main_thread:"} {
			if value, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok {
				seconds, err := strconv.ParseFloat(value, 64)
				if err != nil {
					b.Fatal(err)
				}
				sum += seconds
			}
		}
	}
	return sum
}
