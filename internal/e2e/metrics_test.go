package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// metric returns the sum over all labels of a counter, gauge or histogram count
// on the debug port, or over those with certain values, such as "action=Walk".
func metric(debug, name string, labels ...string) (float64, error) {
	response, err := http.Get("http://" + debug + "/metrics")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		return 0, err
	}
	family, ok := families[name]
	if !ok {
		return 0, fmt.Errorf("there is no metric %s", name)
	}
	sum := 0.0
	for _, m := range family.GetMetric() {
		has := func(label string) bool {
			return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName()+"="+l.GetValue() == label })
		}
		if slices.ContainsFunc(labels, func(label string) bool { return !has(label) }) {
			continue
		}
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
	}
	return sum, nil
}

func metricAtLeast(debug, name string, want float64) error {
	got, err := metric(debug, name)
	if err != nil || got >= want {
		return err
	}
	return fmt.Errorf("%s is %v, want at least %v", name, got, want)
}

// TestMetrics: the debug port has distribution's metrics, Kubernetes' and ours.
func TestMetrics(t *testing.T) {
	debug := freeAddress(t)
	s := startServer(t, "REGISTRY_HTTP_DEBUG_ADDR="+debug, "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED=true")
	s.pushImage("team/app:v1", "metrics")
	if err := s.status("/apis/image.openshift.io/v1/images", http.StatusOK); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"imageapi_pushes_recorded_total", "imageapi_derivation_duration_seconds", "imageapi_store_operation_duration_seconds",
		"apiserver_request_total", "apiserver_request_duration_seconds", "registry_http_requests_total",
	} {
		if err := metricAtLeast(debug, name, 1); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the heap of an idle server may grow before it is collected", func() error {
		return metricAtLeast(debug, "go_gc_gogc_percent", 150)
	})
	if err := s.status("/metrics", http.StatusNotFound); err != nil {
		t.Errorf("metrics are on the registry's port: %v", err)
	}
}
