package redis_test

import (
	"fmt"
	"math/rand/v2"
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
