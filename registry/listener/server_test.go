package listener

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"
)

// serve runs a Server that answers with the protocol, and returns its address.
func serve(t *testing.T, o Options) string {
	t.Helper()
	if o.Listener == nil {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o.Listener = listener
	}
	o.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+map[bool]string{true: "tls", false: "plain"}[r.TLS != nil])
	})
	server, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	t.Cleanup(func() {
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve ended with %v", err)
		}
	})
	return o.Listener.Addr().String()
}

// certificateFiles writes a new self-signed certificate for host into dir.
func certificateFiles(t *testing.T, dir, name, host string) (certificate, key string) {
	t.Helper()
	certificatePEM, keyPEM, err := cert.GenerateSelfSignedCertKey(host, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for file, content := range map[string][]byte{key: keyPEM, certificate: certificatePEM} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// presented returns the certificate for a client that asks for name.
func presented(t *testing.T, address, name string) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}

func get(t *testing.T, url string) string {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestBothOnOnePort: one port speaks HTTP, HTTP over TLS, and HTTP/2 over TLS; a
// connection that says nothing holds up no other.
func TestBothOnOnePort(t *testing.T) {
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, Options{TLS: TLS{Generated: &pair}})
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for scheme, want := range map[string]string{"http": "HTTP/1.1 plain", "https": "HTTP/2.0 tls"} {
		if got := get(t, scheme+"://"+address); got != want {
			t.Errorf("over %s: %q, want %q", scheme, got, want)
		}
	}
}

// TestCertificates: each client is shown the certificate for the name that it asks for;
// new files are served without a restart, and ones that make no pair change nothing.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	certificate, key := certificateFiles(t, dir, "registry", "registry.example.com")
	apiCertificate, apiKey := certificateFiles(t, dir, "api", "tallyman.registry.svc")
	address := serve(t, Options{TLS: TLS{Certificate: certificate, Key: key, SNICertificate: apiCertificate, SNIKey: apiKey}})
	for name, want := range map[string]string{
		"registry.example.com": "registry.example.com", "tallyman.registry.svc": "tallyman.registry.svc", "": "registry.example.com", "other": "registry.example.com",
	} {
		if err := presented(t, address, name).VerifyHostname(want); err != nil {
			t.Errorf("asked for %q: %v", name, err)
		}
	}
	if got := get(t, "https://"+address); got != "HTTP/2.0 tls" {
		t.Errorf("an answer over %s", got)
	}
	for _, name := range []string{"registry.example.com", "tallyman.registry.svc"} {
		before := presented(t, address, name)
		file := map[string]string{"registry.example.com": "registry", "tallyman.registry.svc": "api"}[name]
		if err := os.WriteFile(filepath.Join(dir, file+".crt"), []byte("no certificate"), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if !presented(t, address, name).Equal(before) {
				t.Fatal("a file without a certificate was believed")
			}
			time.Sleep(10 * time.Millisecond)
		}
		certificateFiles(t, dir, file, name)
		for deadline := time.Now().Add(time.Minute); presented(t, address, name).Equal(before); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the new certificate for %s is not served", name)
			}
		}
	}
}

// TestSettings: http.tls has the meaning that it has for distribution.
func TestSettings(t *testing.T) {
	dir := t.TempDir()
	certificate, key := certificateFiles(t, dir, "registry", "127.0.0.1")
	ca, _ := certificateFiles(t, dir, "ca", "ca")
	dial := func(address string, config *tls.Config) error {
		config.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		_, err = io.ReadAll(conn)
		return err
	}
	pair := TLS{Certificate: certificate, Key: key}
	with := func(change func(*TLS)) TLS {
		changed := pair
		change(&changed)
		return changed
	}
	for name, test := range map[string]struct {
		tls    TLS
		client *tls.Config
		fails  bool
	}{
		"TLS 1.1":                            {pair, &tls.Config{MaxVersion: tls.VersionTLS11}, true},
		"TLS 1.2":                            {pair, &tls.Config{MaxVersion: tls.VersionTLS12}, false},
		"TLS 1.2 where 1.3 is wanted":        {with(func(o *TLS) { o.MinimumTLS = "tls1.3" }), &tls.Config{MaxVersion: tls.VersionTLS12}, true},
		"no certificate where one is asked":  {with(func(o *TLS) { o.ClientAuth = "request-client-cert" }), &tls.Config{}, false},
		"no certificate where one is wanted": {with(func(o *TLS) { o.ClientCAs = []string{ca} }), &tls.Config{}, true},
		"another cipher suite than the one there is": {
			with(func(o *TLS) { o.CipherSuites = []string{"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"} }),
			&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := dial(serve(t, Options{TLS: test.tls}), test.client); (err != nil) != test.fails {
				t.Errorf("%v", err)
			}
		})
	}
	if got := get(t, "https://"+serve(t, Options{TLS: pair, DisableHTTP2: true})); got != "HTTP/1.1 tls" {
		t.Errorf("without HTTP/2 it is %s", got)
	}
	if got := get(t, "http://"+serve(t, Options{})); got != "HTTP/1.1 plain" {
		t.Errorf("without certificates it is %s", got)
	}
}

// TestFaultySettings: an error names the key, and a valid value.
func TestFaultySettings(t *testing.T) {
	dir := t.TempDir()
	certificate, key := certificateFiles(t, dir, "registry", "127.0.0.1")
	for want, faulty := range map[string]TLS{
		`http.tls.minimumtls: "1.1" is not valid: want tls1.2 or tls1.3`: {Certificate: certificate, Key: key, MinimumTLS: "1.1"},
		`http.tls.ciphersuites: "RC4" is not known`:                      {Certificate: certificate, Key: key, CipherSuites: []string{"RC4"}},
		`http.tls.clientauth: "maybe" is not valid: want`:                {Certificate: certificate, Key: key, ClientAuth: "maybe"},
		"http.tls.clientcas: ":                                           {Certificate: certificate, Key: key, ClientCAs: []string{key}},
		"http.tls.certificate, http.tls.key: ":                           {Certificate: certificate, Key: certificate},
		"imageapi.tls.certificate, imageapi.tls.key: ":                   {SNICertificate: filepath.Join(dir, "none"), SNIKey: key},
		"http.tls: certificate and letsencrypt exclude each other":       {Certificate: certificate, Key: key, LetsEncrypt: LetsEncrypt{CacheFile: dir}},
		"http.tls.letsencrypt and imageapi.tls exclude each other":       {SNICertificate: certificate, SNIKey: key, LetsEncrypt: LetsEncrypt{CacheFile: dir}},
	} {
		if _, err := New(Options{TLS: faulty}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// exhausted is a listener that has no file descriptors left for a while.
type exhausted struct {
	net.Listener
	failures int
}

func (l *exhausted) Accept() (net.Conn, error) {
	if l.failures > 0 {
		l.failures--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

// TestTooManyFiles: want of file descriptors ends by itself.
func TestTooManyFiles(t *testing.T) {
	certificate, key := certificateFiles(t, t.TempDir(), "registry", "127.0.0.1")
	for name, o := range map[string]TLS{
		"plain": {}, "tls": {Certificate: certificate, Key: key}, "both": {SNICertificate: certificate, SNIKey: key},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		scheme := map[bool]string{true: "https", false: "http"}[o.Certificate != ""]
		if got := get(t, scheme+"://"+serve(t, Options{Listener: &exhausted{listener, 3}, TLS: o})); got == "" {
			t.Errorf("%s: no answer", name)
		}
	}
}

// TestSilence: connections that send nothing, or too little, are closed, in every protocol of
// the port.
func TestSilence(t *testing.T) {
	certificate, key := certificateFiles(t, t.TempDir(), "registry", "127.0.0.1")
	for name, o := range map[string]TLS{
		"plain": {}, "tls": {Certificate: certificate, Key: key}, "both": {SNICertificate: certificate, SNIKey: key},
	} {
		address := serve(t, Options{TLS: o, headerTimeout: 200 * time.Millisecond})
		for _, beginning := range []string{"", "\x16\x03\x01", "GET / HTTP/1.1\r\nHost: x\r\n"} {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, beginning); err != nil {
				t.Fatal(err)
			}
			if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: a connection that says %q stays open", name, beginning)
			}
			_ = conn.Close()
		}
	}
}

// TestErrorLog: a panic is an error in the log; a handshake that fails is not.
func TestErrorLog(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(before)
	for message, want := range map[string]string{
		"http: panic serving 127.0.0.1:1: x\n":              "level=ERROR",
		"http: TLS handshake error from 127.0.0.1:1: EOF\n": "level=INFO",
	} {
		out.Reset()
		log.New(errorLog{handshake: handshakeLevel(&TLS{Certificate: "tls.crt"})}, "", 0).Print(message)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is logged as %s", message, out.String())
		}
		if handshakeLevel(&TLS{}) != slog.LevelDebug {
			t.Error("handshakes are logged where plain HTTP is served too")
		}
	}
}
