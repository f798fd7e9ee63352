package e2e

import (
	"encoding/xml"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The two ways to run the OCI conformance suite: as it comes, and with the actions allowed
// that a default registry forbids.
var conformanceRuns = map[string]struct {
	config string
	env    []string
}{
	"stock": {config: ""},
	"foreign layers and upload cancel": {
		config: "validation: {manifests: {urls: {allow: ['^https?://']}}}\n",
		env:    []string{"OCI_API_BLOBS_UPLOAD_CANCEL=true"},
	},
}

// TestOCIConformance runs the suite of the OCI distribution-spec against us and against
// distribution as upstream builds it: every test that passes there passes here, and so do all
// tests of referrers and subjects.
func TestOCIConformance(t *testing.T) {
	t.Parallel()
	for name, run := range conformanceRuns {
		t.Run(name, func(t *testing.T) {
			s := startWithConfig(t, plainConfig+run.config)
			plain := startPlainRegistry(t, run.config)
			want, _ := conformance(t, plain, run.env)
			got, failed := conformance(t, s.addr, run.env)
			passed := 0
			for test, times := range want {
				passed += times
				if got[test] < times {
					t.Errorf("%s passes %d times on distribution and %d times here", test, times, got[test])
				}
			}
			if passed < 500 {
				t.Errorf("only %d tests pass on distribution: the comparison shows little", passed)
			}
			t.Logf("%d tests pass on distribution, and here", passed)
			about := func(test string) bool {
				name := strings.ToLower(test)
				return strings.Contains(name, "referrer") || strings.Contains(name, "subject")
			}
			referring := 0
			for test, times := range got {
				if about(test) {
					referring += times
				}
			}
			for _, test := range failed {
				if about(test) {
					t.Errorf("%s fails", test)
				}
			}
			if referring < 100 {
				t.Errorf("only %d tests of referrers and subjects pass", referring)
			}
		})
	}
}

// startPlainRegistry runs distribution's own binary and returns its address.
func startPlainRegistry(t *testing.T, more string, env ...string) string {
	t.Helper()
	dir, addr := t.TempDir(), freeAddress(t)
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, strings.NewReplacer("ADDR", addr, "DIR", dir).Replace(plainConfig+more))
	cmd := exec.Command(tool(t, "registry"), "serve", config)
	cmd.Env = append(append(os.Environ(), "OTEL_TRACES_EXPORTER=none"), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "the plain registry answers", func() error {
		response, err := http.Get("http://" + addr + "/v2/")
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
	return addr
}

// conformance runs the suite and returns how often each test has passed, as many
// run more than once, for different content; and which have failed.
func conformance(t *testing.T, addr string, env []string) (passed map[string]int, failed []string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), tool(t, "conformance"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), append([]string{
		"OCI_REGISTRY=" + addr, "OCI_TLS=disabled", "OCI_VERSION=1.1", "OCI_REPO1=conformance/repo1", "OCI_REPO2=conformance/repo2",
		"OCI_RESULTS_DIR=" + dir, "OCI_CONFIGURATION=/dev/null",
	}, env...)...)
	out, runErr := cmd.CombinedOutput() // it fails if any test does
	content, err := os.ReadFile(filepath.Join(dir, "junit.xml"))
	if err != nil {
		t.Fatalf("%v, %v\n%s", runErr, err, out)
	}
	var report struct {
		Suites []struct {
			Cases []struct {
				Name   string `xml:"name,attr"`
				Status string `xml:"status,attr"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(content, &report); err != nil {
		t.Fatal(err)
	}
	passed = map[string]int{}
	for _, suite := range report.Suites {
		for _, test := range suite.Cases {
			switch test.Status {
			case "passed":
				passed[test.Name]++
			case "failure":
				failed = append(failed, test.Name)
			}
		}
	}
	return passed, failed
}
