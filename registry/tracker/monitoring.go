package tracker

import (
	"github.com/prometheus/client_golang/prometheus"
)

var (
	recordedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_pushes_recorded_total",
		Help: "Manifests and tags that reached the registry, by outcome: recorded, deferred, rejected, failed.",
	}, []string{"result"})
	derivationSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "imageapi_derivation_duration_seconds",
		Help:    "Time to read the config of a pushed manifest and derive its Image.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	})
	lostAtStart = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_lost_at_start_total",
		Help: "Starts at which the image store lacked changes that it had acknowledged earlier.",
	})
	journalEntries = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_pending_changes",
		Help: "Changes in the registry that wait to be recorded, when last looked at.",
	})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{recordedTotal, derivationSeconds, lostAtStart, journalEntries}
}
