package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tallyman/internal/doctor"
	"tallyman/storage/redis/redistest"
)

// broken is a set-up with a fault, and the finding about it.
type broken struct {
	name    string
	prepare func(t *testing.T, dir string) // nil if there is nothing to prepare
	config  string                         // after doctorBase; DIR is a directory
	want    doctor.Finding                 // its texts are parts of those that are wanted
}

// doctorBase is a set-up without faults, but for the process, which does not run.
const doctorBase = "version: 0.1\nhttp: {addr: '127.0.0.1:1'}\n"

const doctorStorage = "storage: {filesystem: {rootdirectory: DIR/registry}}\n"

func warned(area, message, fix string) doctor.Finding {
	return doctor.Finding{Area: area, Status: doctor.Warning, Message: message, Fix: fix}
}

func failed(area, message, fix string) doctor.Finding {
	return doctor.Finding{Area: area, Status: doctor.Failed, Message: message, Fix: fix}
}

// TestDoctor breaks one thing after the other. The doctor names it, and the key that mends it.
func TestDoctor(t *testing.T) {
	put := func(name, content string, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, name), []byte(content), mode))
		}
	}
	pair := func(name string, from, to time.Time) func(*testing.T, string) {
		return func(t *testing.T, dir string) { writePair(t, dir, name, from, to) }
	}
	now, day := time.Now(), 24*time.Hour
	const https = "version: 0.1\nhttp: {addr: '127.0.0.1:1', host: 'https://registry.test', tls: {certificate: DIR/tls.crt, key: DIR/tls.key}}\n" + doctorStorage
	const key = "imageapi: {registryhost: registry.test, signatures: {policies: [{name: prod, scopes: [shop/web], rootsOfTrust: [{policyType: PublicKey, publicKey: {keyPath: DIR/key.pub}}]}]}}\n"
	for _, test := range []broken{
		{"no YAML", nil, "storage: [", failed("configuration", "yaml", "message names")},
		{"a typo in our section", nil, doctorStorage + "imageapi: {onstorefailur: reject}\n", failed("configuration", `unknown key "imageapi.onstorefailur" (did you mean "onstorefailure"?)`, "message names")},
		{"a typo in distribution's part", nil, doctorStorage + "helth: {}\n", warned("configuration", `unknown key "helth"`, "health")},
		{"a former key", nil, doctorStorage + "imageapi: {store: {logage: 1h}}\n", warned("configuration", "logage", "message names")},
		{"the storage is a file", put("registry", "", 0o600), doctorStorage, failed("storage", "is not a directory", "storage.filesystem.rootdirectory")},
		{"the storage is below a file", put("file", "", 0o600), "storage: {filesystem: {rootdirectory: DIR/file/registry}}\n", failed("storage", "not a directory", "storage.filesystem.rootdirectory")},
		{"the storage is gone with the process", nil, "storage: {inmemory: {}}\n", warned("storage", "all content is gone", "filesystem")},
		{"a bucket that cannot be reached", nil, "storage: {s3: {region: us-east-1, bucket: b, accesskey: a, secretkey: b, regionendpoint: 'http://127.0.0.1:1', loglevel: 'off'}}\n", failed("storage", "cannot be written", "storage.s3")},
		{"a driver without its settings", nil, "storage: {s3: {region: us-east-1}}\n", failed("storage", "bucket", "storage.s3")},
		{"a read-only registry", nil, "storage: {filesystem: {rootdirectory: DIR/registry}, maintenance: {readonly: {enabled: true}}}\n", warned("storage", "pushes are refused", "readonly.enabled: false")},
		{"a cache that keeps blobs", nil, "storage: {filesystem: {rootdirectory: DIR/registry}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}\n", warned("storage", "cannot delete blobs", "storage.cache.blobdescriptor: redis")},
		{"the store is below a file", put("file", "", 0o600), doctorStorage + "imageapi: {store: {path: DIR/file/images.db}}\n", failed("store", "not a directory", "imageapi.store.path")},
		{"the store is no store", put("images.db", strings.Repeat("no store", 4096), 0o600), doctorStorage + "imageapi: {store: {path: DIR/images.db}}\n", failed("store", "cannot be read: invalid database", "import of a backup")},
		{"others may read the store", put("images.db", strings.Repeat("no store", 4096), 0o644), doctorStorage + "imageapi: {store: {path: DIR/images.db}}\n", warned("store", "mode 0644", "chmod 600")},
		{"no certificate", nil, https, failed("certificates", "tls.crt: no such file", "http.tls.certificate")},
		{"a certificate that has ended", pair("registry.test", now.Add(-2*day), now.Add(-day)), https, failed("certificates", "has ended on", "http.tls.certificate")},
		{"a certificate that has not begun", pair("registry.test", now.Add(day), now.Add(2*day)), https, failed("certificates", "begins on", "clock")},
		{"a certificate that ends soon", pair("registry.test", now.Add(-day), now.Add(day)), https, warned("certificates", "ends on", "a new one")},
		{"a certificate for another name", pair("other.test", now.Add(-day), now.Add(99*day)), https, failed("certificates", "is for [other.test], and clients ask for registry.test", "one for registry.test")},
		{"a key of another certificate", func(t *testing.T, dir string) {
			writePair(t, dir, "registry.test", now, now.Add(99*day))
			key, err := os.ReadFile(filepath.Join(dir, "tls.key"))
			must(t, err)
			writePair(t, dir, "registry.test", now, now.Add(99*day))
			must(t, os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600))
		}, https, failed("certificates", "private key does not match", "belong together")},
		{"roles that make no sense", put("rbac.yml", "kind: Rolle\n", 0o600), doctorStorage + "imageapi: {auth: {rbacfile: DIR/rbac.yml}}\n", failed("access", "imageapi.auth.rbacfile", "imageapi.auth")},
		{"no file of tokens", nil, doctorStorage + "imageapi: {auth: {tokenauthfile: DIR/none}}\n", failed("access", "tokenauthfile", "imageapi.auth")},
		{"an empty token", put("token", "\n", 0o600), doctorStorage + "imageapi: {auth: {tokenfile: DIR/token}}\n", failed("access", "is empty", "imageapi.auth.tokenfile")},
		{"a token that others may read", put("token", "t\n", 0o644), doctorStorage + "imageapi: {auth: {tokenfile: DIR/token}}\n", warned("access", "other users of this host can read it", "chmod 600")},
		{"no file of users", nil, doctorStorage + "auth: {htpasswd: {realm: r, path: DIR/htpasswd}}\n", warned("access", "is not there", "htpasswd -B")},
		{"a file without users", put("htpasswd", "", 0o600), doctorStorage + "auth: {htpasswd: {realm: r, path: DIR/htpasswd}}\n", failed("access", "has no users", "htpasswd -B")},
		{"no key of a policy", nil, doctorStorage + key, failed("policies", "key.pub: no such file", "message names")},
		{"a scope without a repository", put("key.pub", publicKey(t), 0o600), doctorStorage + key, warned("policies", "policy prod: there is no repository shop/web", "scopes")},
		{"policies without a host", put("key.pub", publicKey(t), 0o600), doctorStorage + strings.Replace(key, "registryhost: registry.test, ", "", 1), warned("policies", "host, which is not configured", "imageapi.registryhost")},
		{"no cluster", nil, doctorStorage + "imageapi: {auth: {kubeconfigfile: DIR/own, delegation: {enabled: true, kubeconfigfile: DIR/none}}}\n", failed("cluster", "no such file", "delegation.kubeconfigfile")},
		{"changes that wait", func(t *testing.T, dir string) {
			must(t, os.MkdirAll(filepath.Join(dir, "registry/tallyman/pending"), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, "registry/tallyman/pending/20260101t000000.000000-a"), []byte("{}"), 0o600))
		}, doctorStorage, warned("records", "1 changes of the registry wait", "the log")},
		{"no process", nil, doctorStorage, warned("process", "no process serves 127.0.0.1:1", "tallyman serve")},
		{"everybody may push", nil, strings.Replace(doctorStorage, "storage", "http: {addr: ':1'}\nstorage", 1), failed("exposure", "everybody who reaches :1 may push", "htpasswd")},
		{"everybody may profile", nil, strings.Replace(doctorStorage, "storage", "http: {addr: '127.0.0.1:1', debug: {addr: ':2'}}\nstorage", 1), failed("exposure", "may read profiles", "http.debug.addr")},
		{"passwords in plain text", put("htpasswd", "a:b\n", 0o600), "http: {addr: ':1'}\nauth: {htpasswd: {realm: r, path: DIR/htpasswd}}\n" + doctorStorage, warned("exposure", "can be read on the network", "http.tls")},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t) })
	}
}

// run wants the finding, and the exit code of the worst one.
func (b *broken) run(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if b.prepare != nil {
		b.prepare(t, dir)
	}
	text := strings.ReplaceAll(b.config, "DIR", dir)
	if !strings.Contains(text, "http: {addr") {
		text = doctorBase + text
	}
	if !strings.HasPrefix(text, "version") {
		text = "version: 0.1\n" + text
	}
	path := filepath.Join(dir, "config.yml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	before := entries(t, dir)
	out, code := tallyman(t, "doctor", "-o", "json", path)
	var got struct {
		Status   doctor.Status    `json:"status"`
		Findings []doctor.Finding `json:"findings"`
	}
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	found := false
	for _, f := range got.Findings {
		if f.Area == b.want.Area && f.Status == b.want.Status && strings.Contains(f.Message, b.want.Message) && strings.Contains(f.Fix, b.want.Fix) {
			found = true
		}
		if key, _, _ := strings.Cut(f.Fix, ": "); strings.HasPrefix(key, "storage.") && f.Line == 0 {
			t.Errorf("%+v: no line of %s", f, path)
		}
		if f.Fix == "" != (f.Status == doctor.OK) {
			t.Errorf("%+v: a fault has a fix, and nothing else has", f)
		}
	}
	if !found {
		t.Errorf("want %+v in %s", b.want, out)
	}
	if want := map[doctor.Status]int{doctor.OK: 0, doctor.Warning: 1, doctor.Failed: 2}[got.Status]; code != want || doctor.Worst(got.Findings) != got.Status {
		t.Errorf("exit code %d with status %s", code, got.Status)
	}
	if after := entries(t, dir); after != before {
		t.Errorf("the doctor has changed files: before\n%s\nafter\n%s", before, after)
	}
}

// entries lists files with their sizes.
func entries(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			fmt.Fprintln(&b, path, info.Size(), info.ModTime())
		} else if err == nil {
			fmt.Fprintln(&b, path)
		}
		return err
	}))
	return b.String()
}

func publicKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// writePair writes tls.crt and tls.key.
func writePair(t *testing.T, dir, name string, from, to time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "tls.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "tls.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600))
}

// TestDoctorOnRedis breaks Redis in every way that loses Images or pushes.
func TestDoctorOnRedis(t *testing.T) {
	healthy := redistest.Start(t, "redis-server", "--appendonly", "yes", "--maxmemory", "1gb", "--maxmemory-policy", "noeviction")
	locked := redistest.Start(t, "redis-server", "--requirepass", "right")
	careless := redistest.Start(t, "redis-server", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	at := func(address, more string) string {
		return "http: {addr: '127.0.0.1:1', secret: s}\nredis: {addrs: ['" + address + "']}\n" + more + doctorStorage
	}
	for _, test := range []broken{
		{"nothing is wrong", nil, at(healthy.Addr, ""), doctor.Finding{Area: "store", Status: doctor.OK, Message: "append-only file"}},
		{"nobody answers", nil, at("127.0.0.1:1", ""), failed("store", "connection refused", "redis.addrs")},
		{"a password is missing", nil, at(locked.Addr, ""), failed("store", "NOAUTH", "redis.password")},
		{"eviction", nil, at(careless.Addr, ""), failed("store", "allkeys-lru: Redis throws Images away", "noeviction")},
		{"too little memory", nil, at(careless.Addr, ""), warned("store", "the history alone may take 268435456", "historybytes")},
		{"no memory limit", nil, at(locked.Addr, "imageapi: {store: {redis: {passwordfile: DIR/password}}}\n"), warned("store", "no memory limit", "maxmemory")},
		{"nothing on disk", nil, at(careless.Addr, ""), warned("store", "keeps nothing on disk", "appendonly yes")},
		{"no append-only file", nil, at(careless.Addr, "imageapi: {store: {redis: {aof: true}}}\n"), failed("store", "every write fails", "appendonly yes")},
		{"no replicas", nil, at(healthy.Addr, "imageapi: {store: {redis: {replicas: 1}}}\n"), failed("store", "waits for 1 replicas, and 0 are connected", "replicas")},
		{"no secret of uploads", nil, strings.Replace(at(healthy.Addr, ""), ", secret: s", "", 1), warned("exposure", "http.secret is not set", "http.secret")},
	} {
		if strings.Contains(test.config, "DIR/password") {
			test.prepare = func(t *testing.T, dir string) {
				must(t, os.WriteFile(filepath.Join(dir, "password"), []byte("right\n"), 0o600))
			}
		}
		t.Run(test.name, func(t *testing.T) { test.run(t) })
	}
}

// TestDoctorAsks has processes that are not well, and a cluster that does not pass requests on.
func TestDoctorAsks(t *testing.T) {
	answers := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if strings.Contains(body, "[-]") {
			w.WriteHeader(http.StatusInternalServerError)
		}
		fmt.Fprint(w, body)
	}))
	defer server.Close()
	const service = "/apis/apiregistration.k8s.io/v1/apiservices/v1.image.openshift.io"
	at := strings.Replace(doctorBase, "127.0.0.1:1", server.Listener.Addr().String(), 1) + doctorStorage
	kubeconfig := func(t *testing.T, dir string) {
		must(t, os.WriteFile(filepath.Join(dir, "kubeconfig"), []byte(
			"apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {}}]\nclusters: [{name: c, cluster: {server: '"+server.URL+"'}}]\n"), 0o600))
	}
	delegated := at + "imageapi: {auth: {kubeconfigfile: DIR/own, delegation: {enabled: true, kubeconfigfile: DIR/kubeconfig}}}\n"
	conditions := func(status string) string {
		return `{"status":{"conditions":[{"type":"Available","status":"` + status + `","reason":"FailedDiscoveryCheck","message":"no route"}]}}`
	}
	for _, test := range []struct {
		broken
		answers map[string]string
	}{
		{broken{"a process that is well", nil, at, doctor.Finding{Area: "process", Status: doctor.OK, Message: "is ready"}}, map[string]string{"/readyz": "[+]registry ok\n"}},
		{broken{"another program", nil, at, failed("process", "another program serves", "http.addr")}, nil},
		{broken{"a process that is not ready", nil, at, failed("process", "registry failed", "log of the process")}, map[string]string{"/readyz": "[-]registry failed: reason withheld\n"}},
		{broken{"a store that is away", nil, at, failed("process", "ping failed", "log of the process")}, map[string]string{"/readyz": "[+]registry ok\n", "/readyz/store": "[-]ping failed\n"}},
		{broken{"removals that wait", nil, at, failed("process", "resync (40 of 50 records are missing)", "resync --confirm")}, map[string]string{"/readyz": "[+]resync (40 of 50 records are missing) ok\n"}},
		{broken{"an index that is being filled", nil, at, warned("process", "index (10 of 50 filled)", "wait")}, map[string]string{"/readyz": "[+]index (10 of 50 filled) ok\n"}},
		{broken{"an APIService that is well", kubeconfig, delegated, doctor.Finding{Area: "cluster", Status: doctor.OK, Message: "passes requests"}}, map[string]string{service: conditions("True")}},
		{broken{"no APIService", kubeconfig, delegated, failed("cluster", "has no APIService", "kubectl apply -k")}, nil},
		{broken{"an APIService that is not available", kubeconfig, delegated, failed("cluster", "FailedDiscoveryCheck: no route", "caBundle")}, map[string]string{service: conditions("False")}},
	} {
		answers = test.answers
		t.Run(test.name, func(t *testing.T) { test.run(t) })
	}
}
