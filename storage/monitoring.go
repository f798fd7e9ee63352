package storage

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	operationSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "imageapi_store_operation_duration_seconds",
		Help:    "Time of one operation on the image store, by operation and result.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	}, []string{"op", "result"})
	openWatches = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_watchers",
		Help: "Open watches on the image store.",
	})
	slowWatches = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_watchers_dropped_total",
		Help: "Watches closed because their client did not keep up.",
	})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{operationSeconds, openWatches, slowWatches}
}

// instrumented measures the operations of a Backend.
type instrumented struct{ Backend }

func instrument(b Backend) Backend { return instrumented{b} }

func observe(op string, start time.Time, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	operationSeconds.WithLabelValues(op, result).Observe(time.Since(start).Seconds())
}

func (b instrumented) Get(ctx context.Context, key string) (*Entry, int64, error) {
	start := time.Now()
	entry, revision, err := b.Backend.Get(ctx, key)
	observe("get", start, err)
	return entry, revision, err
}

func (b instrumented) Scan(ctx context.Context, req ScanRequest) (*ScanResult, error) {
	start := time.Now()
	result, err := b.Backend.Scan(ctx, req)
	observe("scan", start, err)
	return result, err
}

func (b instrumented) Commit(ctx context.Context, m Mutation) (*CommitResult, error) {
	start := time.Now()
	result, err := b.Backend.Commit(ctx, m)
	observe("commit", start, err)
	return result, err
}
