package main_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/util/cert"

	"tallyman/storage/redis/redistest"
)

// TestRedisTLS: Images are kept in a Redis that speaks TLS, wants a client's
// certificate and knows its users; without any of the three the start fails.
func TestRedisTLS(t *testing.T) {
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	crtFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeFile(t, crtFile, string(certificate))
	writeFile(t, keyFile, string(key))
	port := redistest.FreePort(t)
	redistest.Start(t, "redis-server", "--tls-port", fmt.Sprint(port), "--tls-cert-file", crtFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", crtFile, "--user", "tallyman", "on", ">right", "~{quay}:*", "+@all")
	config := strings.NewReplacer("PORT", fmt.Sprint(port), "CRT", crtFile, "KEY", keyFile).Replace(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: DIR/registry}}
http: {addr: ADDR}
redis:
  addrs: ['127.0.0.1:PORT']
  username: tallyman
  password: right
  tls: {certificate: CRT, key: KEY, rootcas: [CRT]}
imageapi:
  store: {redis: {prefix: quay}}
  auth: {kubeconfigfile: DIR/kubeconfig}
`)
	s := startWithConfig(t, config)
	s.image(pushSmallImage(s, "app", "one"))
	for name, change := range map[string][2]string{
		"other keys":          {"prefix: quay", "prefix: shore"},
		"wrong password":      {"password: right", "password: wrong"},
		"unknown certificate": {", rootcas: [" + crtFile + "]", ""},
	} {
		path := filepath.Join(t.TempDir(), "config.yml")
		writeFile(t, path, strings.NewReplacer("ADDR", "127.0.0.1:0", "DIR", t.TempDir(), change[0], change[1]).Replace(config))
		if out, err := tryTallyman(t, "serve", path); err == nil || !strings.Contains(out, "redis:") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
