package e2e

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

// tallyman runs the binary and returns its output and exit code.
func tallyman(t *testing.T, env []string, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestDefaultServe: without a configuration all data is in one directory, the
// kubeconfig is private and survives a restart, and only this machine can connect.
func TestDefaultServe(t *testing.T) {
	s := startServer(t)
	info, err := os.Stat(s.kubeconfig)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig's mode is %v, %v", info.Mode(), err)
	}
	if !strings.Contains(s.logText(), s.kubeconfig) {
		t.Error("the server does not print the kubeconfig's path")
	}
	if out, code := tallyman(t, nil, "healthcheck", s.url("/readyz")); code != 0 {
		t.Errorf("healthcheck: %d %s", code, out)
	}
	if out, code := tallyman(t, nil, "healthcheck", s.url("/readyz/nothing")); code != 1 || !strings.Contains(out, "404") {
		t.Errorf("healthcheck of nothing: %d %s", code, out)
	}
	if out, code := tallyman(t, s.env, "doctor", "--data-dir", s.dir); code != 0 || !strings.Contains(out, "images.db is open in the running process") || !strings.Contains(out, s.addr+" is ready") {
		t.Errorf("doctor: %d %s", code, out)
	}
	if left := command(t, nil, "find", s.dir, "-path", "*doctor*"); left != "" {
		t.Errorf("the doctor leaves %s", left)
	}
	must(t, "SIGHUP, which has nothing read again, and ends nothing", s.cmd.Process.Signal(syscall.SIGHUP))
	if !strings.HasPrefix(s.restConfig().Host, "https://127.0.0.1:") {
		t.Errorf("the kubeconfig points to %s", s.restConfig().Host)
	}
	before, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	token := before.AuthInfos["tallyman"].Token
	digest := s.pushImage("team/app:v1", "default")
	s.stop()
	s.start()
	s.kubectl("annotate", "image", digest, "after=restart")
	after, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil || after.AuthInfos["tallyman"].Token != token {
		t.Errorf("the token has changed over a restart, %v", err)
	}
	if strings.Contains(s.logText(), token) {
		t.Error("the token is in the log")
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != "images.db images.db.sock kubeconfig kubeconfig.tls.pem log registry" {
		t.Errorf("the data directory holds %s", got)
	}
}
