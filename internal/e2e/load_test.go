package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// buildProgram builds a program of internal/.
func buildProgram(t *testing.T, name string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", path, "tallyman/internal/"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

// loadReport is how a target bore the load, of tallyman-load's report.
type loadReport struct {
	Target                               string
	Seconds, CPUSeconds, CPUMilliseconds float64
	RSSAnonBytes                         int64
	Operations                           []struct {
		Name                             string
		Count, Errors                    int
		Error                            string
		PerSecond, Bytes                 float64
		P50Milliseconds, P99Milliseconds float64
	}
}

// runLoad runs the load program on targets, without the workers that args do not have.
func runLoad(t *testing.T, program string, targets []string, args ...string) []loadReport {
	t.Helper()
	all := []string{"-output", "json", "-images", "0"}
	for _, kind := range []string{"pushers", "repushers", "pullers", "getters", "listers", "watchers"} {
		all = append(all, "-"+kind, "0")
	}
	for _, target := range targets {
		all = append(all, "-target", target)
	}
	cmd := exec.Command(program, append(all, args...)...)
	var messages strings.Builder
	cmd.Stderr = &messages
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, messages.String())
	}
	var reports []loadReport
	if err := json.Unmarshal(out, &reports); err != nil || len(reports) != len(targets) {
		t.Fatalf("%v: %s", err, out)
	}
	return reports
}

// TestLoad runs the load program on a server beside plain distribution: each kind of worker does
// its work, and the report has it.
func TestLoad(t *testing.T) {
	t.Parallel()
	program := buildProgram(t, "tallyman-load")
	s := startServer(t)
	run := func(output string) string {
		t.Helper()
		cmd := exec.Command(program, "-duration", "2s", "-turns", "2", "-most", "200", "-putters", "1", "-creators", "1", "-deleters", "1", "-created", "20", "-formats", "json,yaml,cbor,protobuf,table,metadata", "-output", output,
			"-target", fmt.Sprintf("tallyman=http://%s,pid=%d,token=%s", s.addr, s.cmd.Process.Pid, s.restConfig().BearerToken), "-target", "plain=http://"+startPlainRegistry(t, ""))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	var reports []loadReport
	if out := run("json"); json.Unmarshal([]byte(out), &reports) != nil || len(reports) != 2 {
		t.Fatal(out)
	}
	for i, want := range []string{"create, delete, get, list cbor, list json, list metadata, list protobuf, list table, list yaml, move tag, pull, push, put manifest, watch", "move tag, pull, push, put manifest"} {
		var names []string
		for _, o := range reports[i].Operations {
			names = append(names, o.Name)
			if o.Count == 0 || o.Errors > 0 {
				t.Errorf("%s: %s: %d operations, %d errors, such as %s", reports[i].Target, o.Name, o.Count, o.Errors, o.Error)
			}
		}
		if got := strings.Join(names, ", "); got != want {
			t.Errorf("%s: %s, want %s", reports[i].Target, got, want)
		}
	}
	if reports[0].CPUSeconds == 0 || reports[0].RSSAnonBytes < 1<<20 {
		t.Errorf("%v s of CPU, %d bytes", reports[0].CPUSeconds, reports[0].RSSAnonBytes)
	}
	if out := run("table"); !strings.Contains(out, "p50 ratio") || !strings.Contains(out, "plain") {
		t.Error(out)
	}
	if out, err := exec.Command(program, "-target", "gone=http://127.0.0.1:1").CombinedOutput(); err == nil || !strings.Contains(string(out), "gone: ") {
		t.Errorf("a registry that is not there: %v, %s", err, out)
	}
}
