package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyman/storage/redis/redistest"
)

// TestRedisTLS: Images are kept in a Redis that speaks TLS, wants a client's
// certificate and knows its users; without any of the three the start fails.
func TestRedisTLS(t *testing.T) {
	crtFile, keyFile := bothWays(t)
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

// bothWays makes a certificate that server and client show each other, and returns
// the files of it and its key.
func bothWays(t *testing.T) (crtFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	crtFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	writeFile(t, crtFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return crtFile, keyFile
}
