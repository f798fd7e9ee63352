package policy

import "github.com/prometheus/client_golang/prometheus"

var (
	verificationsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_signature_verifications_total",
		Help: "Verifications of signatures, by the signature's type and the reason of its condition Trusted.",
	}, []string{"type", "result"})
	reloadsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_signature_policy_reloads_total",
		Help: "Times that the files of signature policies had changed: reloaded, or failed and left as they were.",
	}, []string{"result"})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{verificationsTotal, reloadsTotal}
}
