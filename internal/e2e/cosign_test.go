package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

// signingConfig believes a key and, keyless, an identity, for repositories under cos.
const signingConfig = `
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: DIR/registry}, delete: {enabled: true}}
http: {addr: ADDR}
imageapi:
  registryhost: ADDR
  auth: {kubeconfigfile: DIR/kubeconfig}
  signatures:
    policies:
    - name: logged
      scopes: [cos/logged]
      rootsOfTrust:
      - {name: release, policyType: PublicKey, publicKey: {keyPath: KEY, rekorKeyPath: LOG}}
    - name: prod
      scopes: [cos]
      rootsOfTrust:
      - {name: release, policyType: PublicKey, publicKey: {keyPath: KEY}}
      - name: ci
        policyType: Sigstore
        sigstore: {trustedRootPath: ROOT, identities: [{issuer: 'https://issuer.example.test', subject: dev@example.test}], requireTimestamp: true}
`

// cosigner runs one version of cosign.
type cosigner struct {
	t      *testing.T
	tool   string
	dir    string
	server *server
	fake   *fakeSigstore
}

func newCosigner(t *testing.T, name string) *cosigner {
	t.Helper()
	c := &cosigner{t: t, tool: name, dir: t.TempDir(), fake: startFakeSigstore(t)}
	for _, key := range []string{"release", "stranger"} {
		command(t, c.env(), c.tool, "generate-key-pair", "--output-key-prefix", filepath.Join(c.dir, key))
	}
	config := strings.NewReplacer("KEY", filepath.Join(c.dir, "release.pub"), "ROOT", c.fake.trustedRoot, "LOG", c.fake.logKey).Replace(signingConfig)
	c.server = startWithConfig(t, config)
	command(t, c.env(), c.tool, "version")
	if name == "cosign" {
		writeConfig := []string{"signing-config", "create", "--out", filepath.Join(c.dir, "none.json")}
		c.run(writeConfig...)
		service := func(kind string) string {
			return fmt.Sprintf("url=%s,api-version=1,start-time=2024-01-01T00:00:00Z,operator=test", c.fake.url+kind)
		}
		c.run("signing-config", "create", "--out", filepath.Join(c.dir, "keyless.json"), "--fulcio", service(""),
			"--rekor", service(""), "--rekor-config", "ANY", "--tsa", service("/api/v1/timestamp"), "--tsa-config", "ANY")
	}
	return c
}

func (c *cosigner) env(more ...string) []string {
	return append([]string{"COSIGN_PASSWORD=", "HOME=" + c.dir, "TUF_ROOT=" + c.dir}, more...)
}

func (c *cosigner) run(args ...string) string {
	c.t.Helper()
	return command(c.t, c.env(), c.tool, args...)
}

func (c *cosigner) key(name string) string { return filepath.Join(c.dir, name+".key") }

// Ways to sign, as they are told to cosign.
var (
	classic  = []string{"--use-signing-config=false", "--new-bundle-format=false", "--tlog-upload=false"}
	classic2 = []string{"--tlog-upload=false"}
	bundle2  = []string{"--new-bundle-format=true", "--tlog-upload=false"}
)

func (c *cosigner) sign(ref string, args ...string) {
	c.t.Helper()
	c.run(append(append([]string{"sign", "--yes", "--allow-http-registry"}, args...), ref)...)
}

// keyless is how to sign keyless in the classic form.
func (c *cosigner) keylessClassic() []string {
	args := []string{
		"--identity-token", c.fake.token, "--fulcio-url", c.fake.url, "--rekor-url", c.fake.url,
		"--timestamp-server-url", c.fake.url + "/api/v1/timestamp", "--insecure-skip-verify",
	}
	if c.tool == "cosign" {
		args = append(args, "--use-signing-config=false", "--new-bundle-format=false")
	}
	return args
}

// summary is the part of an Image about its signatures, without values that differ from run to
// run.
func summary(image *imagev1.Image) string {
	var lines []string
	for _, s := range image.Signatures {
		line := s.Type
		for _, c := range s.Conditions {
			line += fmt.Sprintf(" %s=%s(%s)", c.Type, c.Status, c.Reason)
		}
		if s.IssuedTo != nil {
			line += fmt.Sprintf(" by %q issued by %q created %t identity %t", s.IssuedTo.CommonName, s.IssuedBy.CommonName, s.Created != nil, s.ImageIdentity != "")
		}
		for _, claim := range []string{"team", "Issuer", "predicateType"} {
			if value := s.SignedClaims[claim]; value != "" {
				line += fmt.Sprintf(" %s=%s", claim, value)
			}
		}
		lines = append(lines, line)
	}
	// Names, which they are in order of, are made of keys.
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// TestCosign: sign, append, attest, attach, copy, clean and delete with cosign 3, and
// look at the Image after each step.
func TestCosign(t *testing.T) {
	c := newCosigner(t, "cosign")
	s := c.server
	repo := s.addr + "/cos/app"
	name := s.pushImage("cos/app:v1", "cosign")
	ref := repo + "@" + name
	statement := filepath.Join(c.dir, "predicate.json")
	writeFile(t, statement, `{"builder":{"id":"test"}}`)
	sbom := filepath.Join(c.dir, "sbom.json")
	writeFile(t, sbom, `{"spdxVersion":"SPDX-2.3"}`)
	none := []string{"--signing-config", filepath.Join(c.dir, "none.json")}
	key := []string{"--key", c.key("release")}
	steps := []struct {
		name string
		do   func()
	}{
		{"sign with a key", func() { c.sign(ref, append(key, append(none, "-a", "team=blue")...)...) }},
		{"sign with another key", func() { c.sign(ref, append([]string{"--key", c.key("stranger")}, none...)...) }},
		{"sign in the classic form", func() { c.sign(ref, append(key, classic...)...) }},
		{"append with another key", func() { c.sign(ref, append([]string{"--key", c.key("stranger")}, classic...)...) }},
		{"sign once more, which changes nothing", func() { c.sign(ref, append(key, classic...)...) }},
		{"attest", func() {
			c.run(append(append([]string{"attest", "--yes", "--allow-http-registry", "--predicate", statement, "--type", "slsaprovenance1"}, append(key, none...)...), ref)...)
		}},
		{"attest in the classic form", func() {
			c.run(append(append([]string{"attest", "--yes", "--allow-http-registry", "--predicate", statement, "--type", "custom"}, append(key, classic...)...), ref)...)
		}},
		{"attach an SBOM", func() { c.run("attach", "sbom", "--allow-http-registry", "--sbom", sbom, ref) }},
		{"sign keyless", func() {
			c.sign(ref, "--identity-token", c.fake.token, "--signing-config", filepath.Join(c.dir, "keyless.json"), "--trusted-root", c.fake.trustedRoot)
		}},
		{"sign keyless in the classic form", func() { c.sign(ref, c.keylessClassic()...) }},
		{"copy", func() { c.run("copy", "--allow-http-registry", ref, s.addr+"/cos/copy:v1") }},
		{"clean", func() { c.run("clean", "--allow-http-registry", "--force", ref) }},
	}
	var log strings.Builder
	for _, step := range steps {
		step.do()
		fmt.Fprintf(&log, "## %s\n%s\n", step.name, summary(s.image(name)))
	}
	for _, item := range s.imageList() {
		if kind := item.Annotations["tallyman.dev/artifact-type"]; strings.Contains(kind, "sigstore") || strings.Contains(kind, "cosign") {
			t.Errorf("a signature has an Image: %s", kind)
		}
	}
	verified := c.run("verify", "--key", filepath.Join(c.dir, "release.pub"), "--allow-http-registry", "--insecure-ignore-tlog", s.addr+"/cos/copy:v1")
	if !strings.Contains(verified, name) {
		t.Errorf("cosign does not verify the copy: %s", verified)
	}
	for _, repository := range []string{"cos/app", "cos/copy"} {
		if got := s.request(http.MethodDelete, "/v2/"+repository+"/manifests/"+name, "", nil); got.code != http.StatusAccepted {
			t.Fatalf("delete: %d %s", got.code, got.body)
		}
	}
	if _, err := s.images().Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the deletion: %v", err)
	}
	s.pushImage("cos/app:v1", "cosign")
	fmt.Fprintf(&log, "## delete, and push again\n%s\n", summary(s.image(name)))
	golden(t, "cosign3.golden", log.String())
}

// TestCosignLogged: a key whose signatures have to be in the log.
func TestCosignLogged(t *testing.T) {
	r := recordingOf(t, "logged")
	if *record {
		c := newCosigner(t, "cosign2")
		name := c.server.pushImage("cos/logged:v1", "logged")
		ref := c.server.addr + "/cos/logged@" + name
		r.begin(c, name)
		c.sign(ref, append(classic2, "--key", c.key("release"))...)
		r.step("without a log entry")
		command(t, c.env("SIGSTORE_REKOR_PUBLIC_KEY="+c.fake.logKey), c.tool, "sign", "--yes", "--allow-http-registry", "--key", c.key("release"),
			"--rekor-url", c.fake.url, "--tlog-upload=true", "-a", "team=blue", ref)
		r.step("with a log entry")
		r.end()
	}
	const want = "CosignSimpleSigningV1 Trusted=False(LogEntryMissing) ForImage=True(DigestMatches)\n"
	got := r.replay()
	if got[0] != want {
		t.Errorf("without a log entry: %s", got[0])
	}
	if !strings.Contains(got[1], "Trusted=True(Verified)") || !strings.Contains(got[1], "created true") || !strings.Contains(got[1], want) {
		t.Errorf("with a log entry: %s", got[1])
	}
}

// TestCosign2 is the same with cosign 2, as far as it does things in its own way.
func TestCosign2(t *testing.T) {
	r := recordingOf(t, "cosign2")
	if *record {
		recordCosign2(t, r)
	}
	var log strings.Builder
	for i, got := range r.replay() {
		fmt.Fprintf(&log, "## %s\n%s\n", r.Steps[i], got)
	}
	golden(t, "cosign2.golden", log.String())
}

func recordCosign2(t *testing.T, r *recording) {
	t.Helper()
	c := newCosigner(t, "cosign2")
	name := c.server.pushImage("cos/app:v1", "cosign2")
	ref := c.server.addr + "/cos/app@" + name
	r.begin(c, name)
	key := []string{"--key", c.key("release")}
	steps := []struct {
		name string
		do   func()
	}{
		{"sign with a key", func() { c.sign(ref, append(key, append(classic2, "-a", "team=blue")...)...) }},
		{"append with another key", func() { c.sign(ref, append([]string{"--key", c.key("stranger")}, classic2...)...) }},
		{"sign as an OCI 1.1 referrer", func() {
			command(t, c.env("COSIGN_EXPERIMENTAL=1"), c.tool, append(append([]string{"sign", "--yes", "--allow-http-registry", "--registry-referrers-mode=oci-1-1"},
				append(key, classic2...)...), ref)...)
		}},
		{"sign in the form of cosign 3", func() { c.sign(ref, append(key, bundle2...)...) }},
		{"sign keyless", func() { c.sign(ref, c.keylessClassic()...) }},
		{"clean", func() { c.run("clean", "--allow-http-registry", "--force", ref) }},
	}
	for _, step := range steps {
		step.do()
		r.step(step.name)
	}
	r.end()
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// imageList returns all Images.
func (s *server) imageList() []imagev1.Image {
	s.t.Helper()
	list, err := s.images().List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return list.Items
}
