package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAlertRules has Prometheus check the alerts and run their tests, and parse the queries of the dashboard.
func TestAlertRules(t *testing.T) {
	directory, err := filepath.Abs("../../config/monitoring")
	if err != nil {
		t.Fatal(err)
	}
	if out := command(t, nil, "promtool", "check", "rules", filepath.Join(directory, "alerts.yml")); !strings.Contains(out, "SUCCESS") {
		t.Errorf("promtool check rules: %s", out)
	}
	if out := command(t, nil, "promtool", "test", "rules", filepath.Join(directory, "alerts_test.yml")); !strings.Contains(out, "SUCCESS") {
		t.Errorf("promtool test rules: %s", out)
	}
	content, err := os.ReadFile(filepath.Join(directory, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(content, &dashboard); err != nil {
		t.Fatal(err)
	}
	rules, queries := "groups:\n- name: dashboard\n  rules:\n", 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*").Replace(target.Expr)
			rules += fmt.Sprintf("  - {record: 'panel:%d', expr: %q}\n", queries, expr)
			queries++
		}
	}
	path := filepath.Join(t.TempDir(), "queries.yml")
	writeFile(t, path, rules)
	if out := command(t, nil, "promtool", "check", "rules", path); !strings.Contains(out, fmt.Sprintf("%d rules found", queries)) || queries < 30 {
		t.Errorf("promtool check rules, of %d queries: %s", queries, out)
	}
}
