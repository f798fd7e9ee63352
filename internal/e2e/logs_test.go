package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLogFormat: every line from the first to the last has the configured format. Of
// Kubernetes' libraries and of requests about the API itself there is none.
func TestLogFormat(t *testing.T) {
	for formatter, first := range map[string]string{"json": "{", "logstash": "{", "text": "time="} {
		t.Run(formatter, func(t *testing.T) {
			s := startServer(t, "REGISTRY_LOG_FORMATTER="+formatter)
			for _, path := range []string{"/apis", api, "/openapi/v3", "/version", "/readyz", api + "/images"} {
				if got := s.call("GET", path, asJSON, ""); got.code != http.StatusOK {
					t.Errorf("%s: %d %s", path, got.code, got.body)
				}
			}
			s.stop()
			text := s.logText()
			for line := range strings.Lines(text) {
				if first == "{" && !json.Valid([]byte(line)) || !strings.HasPrefix(line, first) {
					t.Errorf("not %s: %s", formatter, line)
				}
			}
			for _, want := range []string{"images are kept in the embedded store", "resync complete", "stopped", api + "/images"} {
				if !strings.Contains(text, want) {
					t.Errorf("the log lacks %q:\n%s", want, text)
				}
			}
			for _, noise := range []string{"GroupVersion", "pruner", "openapi", "\"/apis\"", "readyz"} {
				if strings.Contains(text, noise) {
					t.Errorf("the log has %q:\n%s", noise, text)
				}
			}
		})
	}
}

// TestFirstSteps starts a registry without a configuration on a terminal: it prints
// commands, which work.
func TestFirstSteps(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	output := filepath.Join(dir, "output")
	cmd := exec.Command("script", "-qefc", binary+" serve --data-dir "+dir, output)
	cmd.Env = append(os.Environ(), "REGISTRY_HTTP_ADDR="+address)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	var text string
	eventually(t, "the server listens", func() error {
		content, err := os.ReadFile(output)
		text = string(content)
		if err == nil && !strings.Contains(text, "listening") {
			err = os.ErrNotExist
		}
		return err
	})
	for _, want := range []string{"docker push " + address + "/busybox", "kubectl --kubeconfig " + dir + "/kubeconfig get images --watch"} {
		if !strings.Contains(text, want) {
			t.Errorf("the terminal lacks %q:\n%s", want, text)
		}
	}
	for _, alarming := range []string{"level=", "ERRO", "WARN", "GroupVersion"} {
		if strings.Contains(text, alarming) {
			t.Errorf("the terminal has %q:\n%s", alarming, text)
		}
	}
	for line := range strings.Lines(text) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "kubectl --kubeconfig"); ok && !strings.Contains(line, "--watch") {
			got := exec.Command(tool(t, "kubectl"), strings.Fields("--kubeconfig"+command)...)
			if out, err := got.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", command, err, out)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "registry", "docker", "registry", "v2", "repositories")); err != nil {
		t.Errorf("the purge of uploads would log an error: %v", err)
	}
}
