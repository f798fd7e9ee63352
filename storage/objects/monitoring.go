package objects

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/storage"
	"tallyman/storage/encoding"
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
	fullStore = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_full_total",
		Help: "Writes that were refused because the image store has no room.",
	})
	corruptObjects = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_corrupt_objects_total",
		Help: "Objects that could not be read, each time that a list or a watch went on without one, by resource.",
	}, []string{"resource"})
	indexFilled = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "imageapi_index_filled_objects",
		Help: "Objects that were looked at to fill the index of terms, by resource.",
	}, []string{"resource"})
	indexComplete = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "imageapi_index_complete",
		Help: "1 if the index of terms is complete, so that lists by selector read only matching objects, by resource.",
	}, []string{"resource"})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return append(encoding.Collectors(), operationSeconds, openWatches, slowWatches, fullStore, corruptObjects, indexFilled, indexComplete)
}

// instrumented measures the operations of a Backend.
type instrumented struct{ storage.Backend }

func instrument(b storage.Backend) storage.Backend { return instrumented{b} }

func observe(op string, start time.Time, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	operationSeconds.WithLabelValues(op, result).Observe(time.Since(start).Seconds())
}

func (b instrumented) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	start := time.Now()
	result, err := b.Backend.Get(ctx, req)
	observe("get", start, err)
	return result, err
}

func (b instrumented) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	start := time.Now()
	result, err := b.Backend.Scan(ctx, req)
	observe("scan", start, err)
	return result, err
}

func (b instrumented) Commit(ctx context.Context, mutations ...storage.Mutation) (*storage.CommitResult, error) {
	start := time.Now()
	result, err := b.Backend.Commit(ctx, mutations...)
	observe("commit", start, err)
	return result, err
}
