package house

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const monitoring = "../../config/monitoring/"

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func parse(t *testing.T, path string, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(read(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// metricNames are those of our metrics in a text.
func metricNames(text string) []string {
	all := regexp.MustCompile(`\bimageapi_\w+`).FindAllString(text, -1)
	for i := range all {
		if name, ok := strings.CutSuffix(all[i], "_duration_seconds_bucket"); ok {
			all[i] = name + "_duration_seconds"
		} else if name, ok := strings.CutSuffix(all[i], "_duration_seconds_count"); ok {
			all[i] = name + "_duration_seconds"
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// defined are the metrics that the sources define.
func defined(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "-C", "../..", "grep", "-hoE", `Name: *"imageapi_[a-z_]+"`, "--", "*.go", ":!*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	return metricNames(string(out))
}

// TestMetrics: alerts and the dashboard are about metrics that there are, and each metric is in docs/metrics.md.
func TestMetrics(t *testing.T) {
	exist, documented := defined(t), metricNames(read(t, "../../docs/metrics.md"))
	if len(exist) < 25 {
		t.Fatalf("the sources define %q only", exist)
	}
	for _, name := range exist {
		if !slices.Contains(documented, name) {
			t.Errorf("docs/metrics.md does not have %s", name)
		}
	}
	for _, file := range []string{"../../docs/metrics.md", monitoring + "alerts.yml", monitoring + "alerts_test.yml", monitoring + "dashboard.json", "../../docs/alerts.md"} {
		for _, name := range metricNames(read(t, file)) {
			if !slices.Contains(exist, name) {
				t.Errorf("%s names %s, which no source defines", file, name)
			}
		}
	}
	for _, name := range exist {
		if !slices.Contains(metricNames(read(t, monitoring+"dashboard.json")), name) {
			t.Errorf("the dashboard does not show %s", name)
		}
	}
}

// TestAlerts: each alert has a test and a paragraph, and the Prometheus Operator gets the same ones.
func TestAlerts(t *testing.T) {
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert       string
				Annotations map[string]string
				Labels      map[string]string
			}
		}
	}
	parse(t, monitoring+"alerts.yml", &rules)
	tests, paragraphs := read(t, monitoring+"alerts_test.yml"), read(t, "../../docs/alerts.md")
	count := 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			count++
			if !strings.Contains(tests, "\n          - exp_labels") || !strings.Contains(tests, "alertname: "+rule.Alert+"\n        eval_time") || !strings.Contains(tests, "{alertname: "+rule.Alert+", ") {
				t.Errorf("alerts_test.yml does not have %s firing, and silent", rule.Alert)
			}
			_, paragraph, found := strings.Cut(paragraphs, "\n## "+rule.Alert+"\n")
			paragraph, _, _ = strings.Cut(paragraph, "\n## ")
			if !found || len(strings.Fields(paragraph)) < 30 {
				t.Errorf("docs/alerts.md does not say what to do about %s", rule.Alert)
			}
			if want := "docs/alerts.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook"] != want || rule.Annotations["summary"] == "" || rule.Labels["severity"] == "" {
				t.Errorf("%s: %+v, want a severity, a summary and the runbook %s", rule.Alert, rule, want)
			}
		}
	}
	if count < 15 {
		t.Errorf("there are %d alerts", count)
	}
	var own struct{ Groups any }
	var operators struct{ Spec struct{ Groups any } }
	parse(t, monitoring+"alerts.yml", &own)
	parse(t, "../../config/kubernetes/components/servicemonitor/prometheusrule.yaml", &operators)
	if !reflect.DeepEqual(own.Groups, operators.Spec.Groups) {
		t.Error("prometheusrule.yaml has other alerts than config/monitoring/alerts.yml")
	}
}

// TestDashboard: the dashboard is one that Grafana takes, and kustomize and the chart have it.
func TestDashboard(t *testing.T) {
	var dashboard struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Type, Title string
			Description string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr, RefID string }
			FieldConfig struct{ Defaults struct{ Unit string } }
		}
	}
	content := []byte(read(t, monitoring+"dashboard.json"))
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q: its id is taken, it has no title, or it is outside of the grid", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type != "row" && (len(p.Targets) == 0 || p.Description == "" || p.FieldConfig.Defaults.Unit == "") {
			t.Errorf("panel %q has no query, description or unit", p.Title)
		}
		for _, target := range p.Targets {
			if !strings.Contains(target.Expr, `{job=~"$job"`) {
				t.Errorf("panel %q asks for all jobs: %s", p.Title, target.Expr)
			}
		}
	}
	for _, copied := range []string{"components/servicemonitor", "chart/files"} {
		if !bytes.Equal([]byte(read(t, "../../config/kubernetes/"+copied+"/dashboard.json")), content) {
			t.Errorf("config/kubernetes/%s has another dashboard: run make monitoring", copied)
		}
	}
}
