package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures/signtest"
)

// instance is a registry that `tallyman serve` runs in this process.
type instance struct{ dir, addr string }

// served is the only one: distribution keeps state in variables of its packages.
var served struct {
	once sync.Once
	instance
	stop func() error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if served.stop != nil {
		if err := served.stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// serving returns the server, which the first call starts.
func serving(t *testing.T) instance {
	t.Helper()
	served.once.Do(func() {
		dir, err := os.MkdirTemp("", "tallyman-test-")
		must(t, err)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		served.instance = instance{dir: dir, addr: l.Addr().String()}
		must(t, l.Close())
		ctx, cancel := context.WithCancel(context.Background())
		cmd := newRootCommand()
		cmd.SetArgs([]string{"serve", served.configure(t, "", "")})
		ended := make(chan int, 1)
		go func() { ended <- run(ctx, cmd) }()
		served.stop = func() error {
			cancel()
			if code := <-ended; code != 0 {
				return fmt.Errorf("serve ended with %d", code)
			}
			return os.RemoveAll(dir)
		}
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if _, code := tallyman(t, "healthcheck", "http://"+served.addr+"/readyz"); code == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("the server is not ready after a minute")
			}
		}
	})
	if served.stop == nil {
		t.Fatal("the server did not start")
	}
	return served.instance
}

// configure writes a configuration of the server. With the address of a Redis it names that
// store, with the file of a public key it trusts that key.
func (s instance) configure(t *testing.T, redis, key string) string {
	t.Helper()
	content := `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: DIR/registry}, delete: {enabled: true}}
http: {addr: ADDR, debug: {addr: "127.0.0.1:0", prometheus: {enabled: true}}}
redis: {addrs: [REDIS]}
imageapi:
  store: {type: TYPE}
  auth: {kubeconfigfile: DIR/kubeconfig}
`
	kind := "bolt"
	if redis != "" {
		kind = "redis"
	}
	if key != "" {
		content += "  signatures: {policies: [{name: all, scopes: ['*'], rootsOfTrust: [{name: release, policyType: PublicKey, publicKey: {keyPath: '" + key + "'}}]}]}\n"
	}
	content = strings.NewReplacer("DIR", s.dir, "ADDR", s.addr, "REDIS", redis, "TYPE", kind).Replace(content)
	file, err := os.CreateTemp(s.dir, "config-*.yml")
	must(t, err)
	_, err = file.WriteString(content)
	must(t, err)
	must(t, file.Close())
	return file.Name()
}

// pushImage pushes a new image.
func (s instance) pushImage(t *testing.T, repository, tag string) digest.Digest {
	t.Helper()
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","author":"%s","rootfs":{"type":"layers","diff_ids":[]}}`, rand.Text())
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"%s","size":%d},"layers":[]}`,
		imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageConfig, digest.FromBytes(config), len(config))
	a := signtest.Artifact{Manifest: manifest, Blobs: [][]byte{config}, Digest: digest.FromBytes(manifest)}
	s.push(t, repository, tag, a)
	return a.Digest
}

func (s instance) push(t *testing.T, repository, reference string, a signtest.Artifact) {
	t.Helper()
	base := "http://" + s.addr + "/v2/" + repository
	for _, blob := range a.Blobs {
		location := s.send(t, http.MethodPost, base+"/blobs/uploads/", "", nil, http.StatusAccepted).Get("Location")
		s.send(t, http.MethodPut, location+"&digest="+digest.FromBytes(blob).String(), "", blob, http.StatusCreated)
	}
	s.send(t, http.MethodPut, base+"/manifests/"+reference, imagespec.MediaTypeImageManifest, a.Manifest, http.StatusCreated)
}

// send makes a request that has to be answered with the given status.
func (s instance) send(t *testing.T, method, url, mediaType string, body []byte, want int) http.Header {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	must(t, err)
	r.Header.Set("Content-Type", mediaType)
	answer, err := http.DefaultClient.Do(r)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != want {
		t.Fatalf("%s %s: %s %s", method, url, answer.Status, text)
	}
	return answer.Header
}

// TestGarbageCollect: a trial run removes nothing, also beside a server.
func TestGarbageCollect(t *testing.T) {
	s := serving(t)
	name := s.pushImage(t, "collected", "latest")
	config := s.configure(t, "", "")
	if out, code := tallyman(t, "garbage-collect", "--dry-run", "--delete-untagged", config); code != 0 {
		t.Fatalf("%d, %s", code, out)
	}
	if out, _ := tallyman(t, "store", "export", config); !strings.Contains(out, name.String()) {
		t.Errorf("the store holds %s, want %s", out, name)
	}
}

// TestDefaults: addresses and places that follow from settings.
func TestDefaults(t *testing.T) {
	for name, test := range map[string]struct{ http, want, registry string }{
		"port only":       {`{addr: ":5000"}`, "localhost:5000", ""},
		"all addresses":   {`{addr: "0.0.0.0:80"}`, "localhost:80", ""},
		"one address":     {`{addr: "192.0.2.1:80"}`, "192.0.2.1:80", ""},
		"host":            {`{addr: ":5000", host: "https://r.example"}`, "r.example:443", "r.example"},
		"host, plain":     {`{addr: ":5000", host: "http://r.example"}`, "r.example:80", "r.example"},
		"host and port":   {`{addr: ":5000", host: "https://r.example:8443"}`, "r.example:8443", "r.example:8443"},
		"unix, no number": {`{addr: "none"}`, "localhost:5000", ""},
	} {
		file := filepath.Join(t.TempDir(), "config.yml")
		must(t, os.WriteFile(file, []byte("version: 0.1\nstorage: {inmemory: {}}\nhttp: "+test.http+"\n"), 0o600))
		c, err := load(file)
		must(t, err)
		if got := externalAddress(c); got != test.want {
			t.Errorf("%s: external address %s, want %s", name, got, test.want)
		}
		if got := registryHost(c); got != test.registry {
			t.Errorf("%s: registry host %s, want %s", name, got, test.registry)
		}
	}
	for _, test := range []struct{ variable, value, want string }{
		{"HOME", "/home/a", "/home/a/.local/share/tallyman"}, {"XDG_DATA_HOME", "/data", "/data/tallyman"}, {"TALLYMAN_DATADIR", "/here", "/here"},
	} {
		t.Setenv(test.variable, test.value)
		if got := defaultDataDirectory(); got != test.want {
			t.Errorf("with %s the data is in %s, want %s", test.variable, got, test.want)
		}
	}
}
