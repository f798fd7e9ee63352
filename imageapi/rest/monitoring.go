package rest

import (
	imagev1 "github.com/openshift/api/image/v1"
	"github.com/prometheus/client_golang/prometheus"

	"tallyman/imageapi/rules"
)

var truncatedTotal = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "imageapi_truncated_images_total",
	Help: "Images that the registry has written whose annotations have no room for all tags and repositories any more.",
})

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector { return []prometheus.Collector{truncatedTotal} }

// countTruncated counts an Image that has become truncated.
func countTruncated(image, before *imagev1.Image) {
	truncated := func(i *imagev1.Image) bool { return i != nil && i.Annotations[rules.AnnotationTruncated] == "true" }
	if truncated(image) && !truncated(before) {
		truncatedTotal.Inc()
	}
}
