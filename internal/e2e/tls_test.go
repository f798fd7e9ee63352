package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/cert"
)

// TestOwnCertificate: with the registry's own http.tls, kubeconfig and registry
// clients use that certificate.
func TestOwnCertificate(t *testing.T) {
	dir, addr := t.TempDir(), freeAddress(t)
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "tls.crt"), string(certificate))
	writeFile(t, filepath.Join(dir, "tls.key"), string(key))
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, "version: 0.1\nstorage: {filesystem: {rootdirectory: "+dir+"/registry}}\n"+
		"http: {addr: '"+addr+"', tls: {certificate: "+dir+"/tls.crt, key: "+dir+"/tls.key}}\n"+
		"imageapi: {auth: {kubeconfigfile: "+dir+"/kubeconfig}}\n")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "serve", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := &server{t: t, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"), cmd: cmd}
	eventually(t, "the server is ready", func() error {
		_, err := tryCommand(t, s.kubectlEnv(), "kubectl", "get", "--raw", "/readyz")
		return err
	})
	command(t, []string{"SSL_CERT_FILE=" + dir + "/tls.crt"}, "crane", "append", "-f", layerTar(t, "tls"), "-t", addr+"/team/app:v1")
	list, err := s.images().List(t.Context(), metav1.ListOptions{FieldSelector: "tag=team/app:v1"})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("after a push: %v, %v", list, err)
	}
	s.kubectl("annotate", "image", list.Items[0].Name, "over=tls")
	if _, err := os.Stat(s.kubeconfig + ".tls.pem"); !os.IsNotExist(err) {
		t.Errorf("a certificate was generated all the same: %v", err)
	}
}
