package resync

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"tallyman/imageapi/records"
)

// Status says how the last comparison has ended. Its zero value says nothing.
type Status struct{ blocked atomic.Pointer[string] }

// Remark is the name of a readiness check, with the decision that an operator is to take, if there is one.
func (s *Status) Remark() string {
	if why := s.Blocked(); why != "" {
		return "resync (" + why + ")"
	}
	return "resync"
}

// Blocked says why records stay that the registry lacks; "" if none do.
func (s *Status) Blocked() string {
	if why := s.blocked.Load(); why != nil {
		return *why
	}
	return ""
}

// show makes the state one of the metrics and of the Status.
func (r *Resyncer) show(state *records.ResyncState) {
	missingRecords.Set(float64(state.Missing))
	blocked, why := 0.0, ""
	if state.Blocked {
		blocked, why = 1, blockedText(state)
	}
	removalsBlocked.Set(blocked)
	r.options.Status.blocked.Store(&why)
	if !state.Finished.IsZero() {
		lastCompleted.Set(float64(state.Finished.Unix()))
	}
}

var (
	missingRecords = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_resync_missing_records",
		Help: "Records of tags and manifests that the registry lacked at the end of the last resync.",
	})
	removalsBlocked = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_resync_blocked",
		Help: "1 if the registry lacks so much that its records stay until an operator confirms it, else 0.",
	})
	lastCompleted = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_resync_last_completion_timestamp_seconds",
		Help: "End of the last resync.",
	})
	changes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_resync_changes_total",
		Help: "Things that a comparison of the registry with its records found, by outcome: recorded, removed, failed.",
	}, []string{"result"})
	lostAtStart = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_lost_at_start_total",
		Help: "Starts at which the image store lacked changes that it had acknowledged earlier.",
	})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{missingRecords, removalsBlocked, lastCompleted, changes, lostAtStart}
}
