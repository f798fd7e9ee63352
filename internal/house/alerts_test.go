package house

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestAlerts: the alerts are about metrics of the README, and not about others.
func TestAlerts(t *testing.T) {
	rules, err := os.ReadFile("../../config/kubernetes/components/servicemonitor/prometheusrule.yaml")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := regexp.MustCompile(`\bimageapi_\w+`).FindAllString(string(rules), -1)
	if len(metrics) < 10 {
		t.Errorf("the alerts are about %q only", metrics)
	}
	for _, metric := range metrics {
		if !strings.Contains(string(readme), "`"+metric) {
			t.Errorf("the README does not have %s", metric)
		}
	}
}
