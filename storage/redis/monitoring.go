package redis

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

var (
	available = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_store_redis_up",
		Help: "Whether Redis answers (1) or not (0).",
	})
	lossTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_redis_losses_total",
		Help: "Times that content was found missing from Redis: a lossy fail-over, a flush, an eviction.",
	})
	evictedTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_redis_evicted_total",
		Help: "Objects that Redis was found to have evicted.",
	})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{available, lossTotal, evictedTotal}
}

// Stats implements storage.Backend. Its cost does not depend on the number of objects.
func (s *Store) Stats(ctx context.Context) (storage.BackendStats, error) {
	var stats storage.BackendStats
	window, err := s.Window(ctx)
	if err != nil {
		return stats, err
	}
	stats.Window = window
	err = s.do(ctx, func(ctx context.Context) error {
		sizes, err := s.client.HMGet(ctx, s.meta, "bytes", "rawbytes", "logbytes").Result()
		if err != nil {
			return err
		}
		stats.StoredBytes, stats.Bytes, stats.LogBytes = number(sizes[0]), number(sizes[1]), number(sizes[2])
		if stats.Terms, err = s.client.ZCard(ctx, s.terms).Result(); err != nil {
			return err
		}
		if stats.Objects, err = s.client.ZCard(ctx, s.index).Result(); err != nil {
			return err
		}
		stats.LogEntries, err = s.client.XLen(ctx, s.log).Result()
		return err
	})
	return stats, err
}

func number(v any) int64 {
	text, _ := v.(string)
	n, _ := strconv.ParseInt(text, 10, 64) // a hash field that the scripts keep
	return n
}

// clientLog takes go-redis' log of single connections, which the monitor summarizes in one
// line.
type clientLog struct{}

func (clientLog) Printf(ctx context.Context, format string, v ...any) {
	slog.DebugContext(ctx, fmt.Sprintf(format, v...))
}

var useLogger = sync.OnceFunc(func() { goredis.SetLogger(clientLog{}) })
