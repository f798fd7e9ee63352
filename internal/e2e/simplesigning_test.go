package e2e

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/signatures/signtest"
)

// containersHome is a home for skopeo and podman with a GPG key in it.
type containersHome struct {
	t      *testing.T
	dir    string
	public string // file
	policy string // a policy.json that wants signatures by the key
	env    []string
}

func newContainersHome(t *testing.T, registry string) *containersHome {
	t.Helper()
	dir, err := os.MkdirTemp("", "gpg") // gpg-agent's socket needs a short path
	if err != nil {
		t.Fatal(err)
	}
	h := &containersHome{t: t, dir: dir, public: filepath.Join(dir, "release.gpg"), policy: filepath.Join(dir, "policy.json")}
	t.Cleanup(func() {
		_, _ = tryCommand(t, h.env, "gpgconf", "--kill", "all") // or it ends by itself, without its home
		_ = os.RemoveAll(dir)
	})
	conf := filepath.Join(dir, "registries.conf")
	writeFile(t, conf, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", registry))
	lookaside := filepath.Join(dir, "registries.d")
	if err := os.Mkdir(lookaside, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(lookaside, "default.yaml"), "default-docker:\n  lookaside-staging: file://"+filepath.Join(dir, "lookaside")+"\n")
	storage := filepath.Join(dir, "storage.conf")
	writeFile(t, storage, fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", dir+"/graph", dir+"/run"))
	h.env = []string{
		"GNUPGHOME=" + dir, "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "BUILDAH_ISOLATION=chroot",
		"CONTAINERS_REGISTRIES_CONF=" + conf, "CONTAINERS_STORAGE_CONF=" + storage,
	}
	h.run("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "release@example.com", "ed25519", "sign", "0")
	h.run("gpg", "--batch", "--output", h.public, "--export", "release@example.com")
	writeFile(t, h.policy, fmt.Sprintf(`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[{"type":"signedBy","keyType":"GPGKeys","keyPath":%q}]},"containers-storage":{"":[{"type":"insecureAcceptAnything"}]}}}`, registry, h.public))
	return h
}

func (h *containersHome) run(name string, args ...string) string {
	h.t.Helper()
	return command(h.t, h.env, name, args...)
}

func (h *containersHome) skopeo(args ...string) string {
	h.t.Helper()
	return h.run("skopeo", append([]string{"--registries.d", filepath.Join(h.dir, "registries.d")}, args...)...)
}

// TestSimpleSigning: skopeo and podman sign with GPG and leave the signature with the
// registry; the Image names the signer, by a policy.json as it is; and they find it again.
func TestSimpleSigning(t *testing.T) {
	addr := freeAddress(t)
	h := newContainersHome(t, addr)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, strings.NewReplacer("ADDR", addr, "DIR", dir, "POLICY", h.policy).Replace(`
version: 0.1
storage: {filesystem: {rootdirectory: DIR/registry}, delete: {enabled: true}}
http: {addr: ADDR}
imageapi:
  registryhost: ADDR
  auth: {kubeconfigfile: DIR/kubeconfig}
  signatures: {policyfile: POLICY, advertise: true}
`))
	s := &server{t: t, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"), args: []string{"serve", "--data-dir", dir, config}}
	s.start()
	image := "docker://" + addr + "/gpg/app:v1"
	s.pushImage("gpg/unsigned:v1", "gpg")
	copyTo := func(to string, more ...string) {
		h.skopeo(append(append([]string{"--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"}, more...), "docker://"+addr+"/gpg/unsigned:v1", to)...)
	}
	copyTo(image, "--sign-by", "release@example.com")
	name := crane(t, "digest", addr+"/gpg/app:v1")
	got := s.image(name)
	if len(got.Signatures) != 1 || got.Signatures[0].Type != "atomic" || got.Signatures[0].IssuedTo == nil ||
		got.Signatures[0].IssuedTo.CommonName != "release@example.com" || got.Signatures[0].ImageIdentity != addr+"/gpg/app:v1" ||
		got.Signatures[0].Created == nil || len(got.Signatures[0].IssuedTo.PublicKeyID) != 40 {
		t.Fatalf("signatures are %+v", got.Signatures)
	}
	// Signing again adds one: GPG signatures have their time in them.
	time.Sleep(1100 * time.Millisecond)
	copyTo(image, "--sign-by", "release@example.com")
	if got := s.kubectl("get", "images", "-o", "wide", "--field-selector", "signer=release@example.com,trusted=true,trustedRepository=gpg/app"); !strings.Contains(got, "2 signed, 2 trusted") {
		t.Errorf("kubectl prints %s", got)
	}
	// A pull that wants the signature finds it; one of another repository does not,
	// as the signature is not for it.
	h.skopeo("--policy", h.policy, "copy", "--src-tls-verify=false", image, "dir:"+t.TempDir())
	// podman signs its push.
	build := t.TempDir()
	writeFile(t, filepath.Join(build, "Dockerfile"), "FROM scratch\nENV A=b\n")
	h.run("podman", "build", "-q", "-t", addr+"/gpg/podman:v1", build)
	h.run("podman", "push", "-q", "--tls-verify=false", "--sign-by", "release@example.com", addr+"/gpg/podman:v1")
	if got := s.kubectl("get", "images", "-o", "wide", "--field-selector", "tag=gpg/podman:v1"); !strings.Contains(got, "1 signed, 1 trusted") {
		t.Errorf("kubectl prints %s", got)
	}
	h.run("podman", "--log-level=error", "pull", "-q", "--tls-verify=false", "--signature-policy", h.policy, addr+"/gpg/podman:v1")
	// A copy keeps the signatures, which are not for the new place.
	h.skopeo("--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", image, "docker://"+addr+"/gpg/moved:v1")
	if got := s.image(name); len(got.Signatures) != 2 {
		t.Errorf("after a copy there are %d signatures", len(got.Signatures))
	}
	// A restart in between changes nothing.
	before := s.image(name)
	s.stop()
	s.start()
	if after := s.image(name); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("after a restart the Image is %+v, and was %+v", after.Signatures, before.Signatures)
	}
	table := command(t, nil, binary, "verify", "--config", config, "--data-dir", dir, addr+"/gpg/app:v1")
	if !strings.Contains(table, "release@example.com") || !strings.Contains(table, "Verified") {
		t.Errorf("tallyman verify prints %s", table)
	}
}

// TestSignatureEndpoint is the endpoint's protocol: statuses, limits, permissions.
func TestSignatureEndpoint(t *testing.T) {
	users := htpasswdFile(t, "alice", "secret")
	s := startWithConfig(t, plainConfig+"auth: {htpasswd: {realm: test, path: "+users+"}}\nimageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, signatures: {contentlimit: 2000, advertise: true}}\n")
	login := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("alice:secret"))}}
	command(t, []string{"DOCKER_CONFIG=" + s.dir}, "crane", "auth", "login", s.addr, "-u", "alice", "-p", "secret")
	pushed := command(t, []string{"DOCKER_CONFIG=" + s.dir}, "crane", "append", "-f", layerTar(t, "x"), "-t", s.addr+"/ns/app:v1")
	_, name, _ := strings.Cut(strings.TrimSpace(lastLine(pushed, s.addr)), "@")
	path := "/extensions/v2/ns/app/signatures/" + name
	body := func(schema int, name, kind, content string) string {
		return fmt.Sprintf(`{"schemaVersion":%d,"name":%q,"type":%q,"content":%q}`, schema, name, kind, content)
	}
	content := base64.StdEncoding.EncodeToString([]byte("signature"))
	other := "sha256:" + strings.Repeat("a", 64)
	for _, test := range []struct {
		what, method, path, body string
		header                   http.Header
		code                     int
		answer                   string
	}{
		{"no credentials", "GET", path, "", nil, 401, "UNAUTHORIZED"},
		{"no credentials", "PUT", path, body(2, name+"@a", "atomic", content), nil, 401, "UNAUTHORIZED"},
		{"none yet", "GET", path, "", login, 200, `{"signatures":[]}`},
		{"a signature", "PUT", path, body(2, name+"@a", "atomic", content), login, 201, ""},
		{"it again", "PUT", path, body(2, name+"@a", "atomic", content), login, 409, "SIGNATURE_EXISTS"},
		{"the same under another name", "PUT", path, body(2, name+"@b", "atomic", content), login, 409, "SIGNATURE_EXISTS"},
		{"without a type, in the old words", "PUT", path, `{"version":2,"name":"` + name + `@c","content":"eA=="}`, login, 201, ""},
		{"all of them, under one type", "GET", path, "", login, 200, `"type":"atomic","content":"eA=="`},
		{"not JSON", "PUT", path, "hello", login, 400, "SIGNATURE_INVALID"},
		{"another schema", "PUT", path, body(1, name+"@d", "atomic", content), login, 400, "schemaVersion=2"},
		{"another image's", "PUT", path, body(2, other+"@d", "atomic", content), login, 400, "SIGNATURE_INVALID"},
		{"no name", "PUT", path, body(2, "", "atomic", content), login, 400, "SIGNATURE_INVALID"},
		{"two at signs", "PUT", path, body(2, name+"@d@e", "atomic", content), login, 400, "SIGNATURE_INVALID"},
		{"a name that is no path segment", "PUT", path, body(2, name+"@d/e", "atomic", content), login, 400, "SIGNATURE_INVALID"},
		{"no content", "PUT", path, body(2, name+"@d", "atomic", ""), login, 400, "content is required"},
		{"content that is not base64", "PUT", path, body(2, name+"@d", "atomic", "§"), login, 400, "SIGNATURE_INVALID"},
		{"too large", "PUT", path, body(2, name+"@d", "atomic", base64.StdEncoding.EncodeToString(make([]byte, 2001))), login, 413, "at most 2000"},
		{"much too large", "PUT", path, body(2, name+"@d", "atomic", strings.Repeat("A", 1<<20)), login, 413, "at most 2000"},
		{"an image that is not there", "GET", "/extensions/v2/ns/app/signatures/" + other, "", login, 404, "MANIFEST_UNKNOWN"},
		{"an image that is not there", "PUT", "/extensions/v2/ns/app/signatures/" + other, body(2, other+"@a", "atomic", content), login, 404, "MANIFEST_UNKNOWN"},
		{"a repository that does not have it", "GET", "/extensions/v2/ns/other/signatures/" + name, "", login, 404, "MANIFEST_UNKNOWN"},
		{"no digest", "GET", "/extensions/v2/ns/app/signatures/latest", "", login, 400, "DIGEST_INVALID"},
		{"an escaped digest", "GET", strings.Replace(path, ":", "%3A", 1), "", login, 200, "signatures"},
		{"no such method", "DELETE", path, "", login, 405, "UNSUPPORTED"},
	} {
		got := s.request(test.method, test.path, test.body, test.header)
		if got.code != test.code || !strings.Contains(got.body, test.answer) {
			t.Errorf("%s: %s: %d %s, want %d %s", test.method, test.what, got.code, got.body, test.code, test.answer)
		}
		if (got.code == 401) != (got.header.Get("WWW-Authenticate") != "") || got.header.Get("X-Registry-Supports-Signatures") != "1" {
			t.Errorf("%s: %s: header %v", test.method, test.what, got.header)
		}
	}
	if got := s.request("GET", "/v2/", "", nil); got.header.Get("X-Registry-Supports-Signatures") != "1" {
		t.Errorf("GET /v2/ answers without the header: %v", got.header)
	}
	if got := s.image(name); len(got.Signatures) != 2 || got.Signatures[0].Name != name+"@a" || got.Signatures[1].Type != "AtomicImageV1" {
		t.Errorf("signatures are %+v", got.Signatures)
	}
}

// TestSignatureEndpointOff: both of its switches.
func TestSignatureEndpointOff(t *testing.T) {
	for name, test := range map[string]struct {
		options string
		header  string
		code    int
	}{
		"not advertised": {"crossrepository: true", "", 200},
		"advertised":     {"advertise: true", "1", 200},
		"not served":     {"endpoint: false", "", 404},
	} {
		s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, signatures: {"+test.options+"}}\n")
		image := s.pushImage("ns/app:v1", "off")
		if got := s.request("GET", "/v2/", "", nil); got.header.Get("X-Registry-Supports-Signatures") != test.header {
			t.Errorf("%s: %v", name, got.header)
		}
		if got := s.request("GET", "/extensions/v2/ns/app/signatures/"+image, "", nil); got.code != test.code {
			t.Errorf("%s: %d %s", name, got.code, got.body)
		}
	}
}

// TestPostSignature: POST of imagesignatures is verified too, and the client's own statements
// are not trusted.
func TestPostSignature(t *testing.T) {
	dir := t.TempDir()
	gpg := signtest.NewGPG(t, time.Now().Add(-time.Hour))
	key := filepath.Join(dir, "key.asc")
	writeFile(t, key, gpg.Armored())
	s := startWithConfig(t, plainConfig+`
imageapi:
  registryhost: ADDR
  auth: {kubeconfigfile: DIR/kubeconfig}
  signatures:
    policies:
    - {name: all, scopes: ['*'], rootsOfTrust: [{name: gpg, policyType: GPG, gpg: {keyPath: '`+key+`'}}]}
`)
	name := s.pushImage("ns/app:v1", "post")
	made := gpg.Sign(signtest.GPGPayload(digest.Digest(name), s.addr+"/ns/app:v1"), time.Now(), 0)
	signature := &imagev1.ImageSignature{Type: made.Type, Content: made.Content, ImageIdentity: "evil", Conditions: []imagev1.SignatureCondition{
		{Type: "Trusted", Status: "True"}, {Type: "ForImage", Status: "True"},
	}}
	signature.Name = name + "@0123456789abcdef0123456789abcdef"
	stored, err := s.client().ImageSignatures().Create(t.Context(), signature, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if stored.ImageIdentity != s.addr+"/ns/app:v1" || len(stored.Conditions) != 2 || stored.Conditions[0].Reason != "Verified" {
		t.Errorf("the answer is %+v", stored)
	}
	if got := s.image(name).Signatures; len(got) != 1 || got[0].Name != signature.Name {
		t.Errorf("signatures are %+v", got)
	}
	// A client cannot make a signature trusted by saying so.
	image := s.image(name)
	image.Signatures = append(image.Signatures, imagev1.ImageSignature{
		Type: "CosignSimpleSigningV1", Content: []byte("{}"), Conditions: stored.Conditions, IssuedBy: stored.IssuedBy,
	})
	image.Signatures[1].Name = name + "@forged"
	if image, err = s.images().Update(t.Context(), image, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := image.Signatures[1]; got.IssuedBy != nil || got.Conditions[0].Status != "Unknown" || got.Conditions[0].Reason != "Unparsable" {
		t.Errorf("a forged entry is %+v", got)
	}
	if err := s.client().ImageSignatures().Delete(t.Context(), name+"@forged", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// TestLookaside: signatures that clients keep in lookaside storage are found by a server that does
// not advertise its endpoint, which is the default of a configuration.
func TestLookaside(t *testing.T) {
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	h := newContainersHome(t, s.addr)
	writeFile(t, filepath.Join(h.dir, "registries.d", "default.yaml"), "default-docker:\n  lookaside: file://"+filepath.Join(h.dir, "lookaside")+"\n")
	s.pushImage("gpg/unsigned:v1", "gpg")
	image := "docker://" + s.addr + "/gpg/app:v1"
	h.skopeo("--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--sign-by", "release@example.com", "docker://"+s.addr+"/gpg/unsigned:v1", image)
	if got := s.image(crane(t, "digest", s.addr+"/gpg/app:v1")); len(got.Signatures) != 0 {
		t.Fatalf("the signature is at the endpoint: %+v", got.Signatures)
	}
	h.skopeo("--policy", h.policy, "copy", "--src-tls-verify=false", image, "dir:"+t.TempDir())
}
