package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/signatures/signtest"
)

// referrers asks the referrers API.
func (s *server) referrers(repository, subject, query string) (answer, []imagespec.Descriptor) {
	s.t.Helper()
	target := "/v2/" + repository + "/referrers/" + subject + query
	got := s.request(http.MethodGet, target, "", nil)
	var index imagespec.Index
	if got.code != http.StatusOK {
		s.t.Fatalf("%s: %d %s", target, got.code, got.body)
	}
	if err := json.Unmarshal([]byte(got.body), &index); err != nil || index.SchemaVersion != 2 || index.MediaType != imagespec.MediaTypeImageIndex ||
		got.header.Get("Content-Type") != imagespec.MediaTypeImageIndex || index.Manifests == nil {
		s.t.Fatalf("%s: %s, %v", target, got.body, err)
	}
	return got, index.Manifests
}

// attach pushes a manifest about subject with an artifact type.
func (s *server) attach(repository, subject, artifactType, note string) string {
	s.t.Helper()
	s.pushBlob(repository, []byte("{}"))
	empty := `{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` + digest.FromString("{}").String() + `","size":2}`
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":%s,"layers":[%s],"annotations":{"note":%q},"subject":{"mediaType":%q,"digest":%q,"size":1}}`,
		imagespec.MediaTypeImageManifest, artifactType, empty, empty, note, imagespec.MediaTypeImageManifest, subject)
	name := digest.FromString(manifest).String()
	got := s.putManifest(repository, name, imagespec.MediaTypeImageManifest, manifest)
	if got.code != http.StatusCreated || got.header.Get("OCI-Subject") != subject {
		s.t.Fatalf("put of a manifest with a subject: %d, OCI-Subject %q, %s", got.code, got.header.Get("OCI-Subject"), got.body)
	}
	return name
}

func digests(all []imagespec.Descriptor) []string {
	names := make([]string, 0, len(all))
	for _, d := range all {
		names = append(names, d.Digest.String())
	}
	return names
}

// TestReferrersAPI: all referrers of an image, filtered, in pages, under the requests of oras
// and older clients.
func TestReferrersAPI(t *testing.T) {
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	image := s.pushImage("ns/app:v1", "referrers")
	if got, all := s.referrers("ns/app", image, ""); len(all) != 0 || got.header.Get("Link") != "" || got.header.Get("OCI-Filters-Applied") != "" {
		t.Errorf("without referrers: %v %s", got.header, got.body)
	}
	if _, all := s.referrers("no/such", image, ""); len(all) != 0 {
		t.Errorf("in a repository that is not there: %v", all)
	}
	var notes []string
	for i := range 7 {
		notes = append(notes, s.attach("ns/app", image, "example/note", fmt.Sprint(i)))
	}
	scan := s.attach("ns/app", image, "example/scan", "x")
	slices.Sort(notes)
	_, all := s.referrers("ns/app", image, "")
	if want := append(slices.Clone(notes), scan); len(all) != 8 || !slices.Equal(slices.Sorted(slices.Values(digests(all))), slices.Sorted(slices.Values(want))) {
		t.Errorf("all are %v, want %v", digests(all), want)
	}
	if all[0].ArtifactType == "" || all[0].Annotations["note"] == "" || all[0].Size < 100 || all[0].MediaType != imagespec.MediaTypeImageManifest {
		t.Errorf("a descriptor is %+v", all[0])
	}
	got, all := s.referrers("ns/app", image, "?artifactType=example/note")
	if !slices.Equal(digests(all), notes) || got.header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("notes are %v, %v", digests(all), got.header)
	}
	// Pages, followed by their links.
	var paged []string
	for next := "?n=2&artifactType=example/note"; next != ""; {
		got, page := s.referrers("ns/app", image, next)
		if len(page) > 2 || got.header.Get("OCI-Filters-Applied") != "artifactType" {
			t.Errorf("a page of %d, %v", len(page), got.header)
		}
		paged = append(paged, digests(page)...)
		_, query, more := strings.Cut(strings.TrimSuffix(got.header.Get("Link"), `>; rel="next"`), "?")
		if next = "?" + query; !more {
			break
		}
	}
	if !slices.Equal(paged, notes) {
		t.Errorf("in pages %v, want %v", paged, notes)
	}
	// oras sees them, and no longer writes an index of its own.
	out := oras(t, t.TempDir(), "discover", "--plain-http", s.addr+"/ns/app:v1")
	if !strings.Contains(out, "example/scan") || !strings.Contains(out, notes[0]) {
		t.Errorf("oras discovers %s", out)
	}
	if got := s.request(http.MethodGet, "/v2/ns/app/tags/list", "", nil).body; strings.Contains(got, "sha256-") {
		t.Errorf("there is an index for clients: %s", got)
	}
	// Deleted referrers are gone.
	if got := s.request(http.MethodDelete, "/v2/ns/app/manifests/"+scan, "", nil); got.code != http.StatusAccepted {
		t.Fatalf("delete: %d %s", got.code, got.body)
	}
	if _, all := s.referrers("ns/app", image, ""); !slices.Equal(digests(all), notes) {
		t.Errorf("after a deletion: %v", digests(all))
	}
	for target, code := range map[string]int{
		"/v2/ns/app/referrers/latest":                 400,
		"/v2/ns/app/referrers/" + image + "?n=x":      400,
		"/v2/ns/app/referrers/" + image + "?n=0":      400,
		"/v2/ns/app/referrers/" + image + "?last=abc": 400,
	} {
		if got := s.request(http.MethodGet, target, "", nil); got.code != code {
			t.Errorf("%s: %d %s, want %d", target, got.code, got.body, code)
		}
	}
	if got := s.request(http.MethodPost, "/v2/ns/app/referrers/"+image, "", nil); got.code != 405 || got.header.Get("Allow") == "" {
		t.Errorf("POST: %d %v", got.code, got.header)
	}
}

// TestReferrersTagSchema: referrers that an older client has listed under its tag, and that
// name no subject, are listed too.
func TestReferrersTagSchema(t *testing.T) {
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	image := s.pushImage("ns/app:v1", "tag schema")
	known := s.attach("ns/app", image, "example/note", "known")
	old := s.pushImage("ns/app:old", "without a subject")
	describe := func(name string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"artifactType":"example/old"}`, imagespec.MediaTypeImageManifest, name, len(s.manifest("ns/app", name)))
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s,%s]}`, imagespec.MediaTypeImageIndex, describe(known), describe(old))
	tag := strings.Replace(image, ":", "-", 1)
	if got := s.putManifest("ns/app", tag, imagespec.MediaTypeImageIndex, index); got.code != http.StatusCreated {
		t.Fatalf("put of the index: %d %s", got.code, got.body)
	}
	_, all := s.referrers("ns/app", image, "")
	if !slices.Equal(digests(all), []string{known, old}) || all[0].ArtifactType != "example/note" {
		t.Errorf("referrers are %+v", all)
	}
	if _, all := s.referrers("ns/app", image, "?artifactType=example/old"); !slices.Equal(digests(all), []string{old}) {
		t.Errorf("filtered they are %+v", all)
	}
	// An index that has outlived its manifests, and content that is no index.
	if got := s.request(http.MethodDelete, "/v2/ns/app/manifests/"+old, "", nil); got.code != http.StatusAccepted {
		t.Fatalf("delete: %d %s", got.code, got.body)
	}
	if _, all := s.referrers("ns/app", image, ""); !slices.Equal(digests(all), []string{known}) {
		t.Errorf("referrers are %+v", all)
	}
	crane(t, "tag", s.addr+"/ns/app@"+image, tag)
	if _, all := s.referrers("ns/app", image, ""); !slices.Equal(digests(all), []string{known}) {
		t.Errorf("with the image under the tag: %+v", all)
	}
}

// TestReferrersNeedPull: the registry's auth guards the referrers API.
func TestReferrersNeedPull(t *testing.T) {
	users := htpasswdFile(t, "alice", "secret")
	s := startWithConfig(t, plainConfig+"auth: {htpasswd: {realm: test, path: "+users+"}}\n")
	target := "/v2/ns/app/referrers/sha256:" + strings.Repeat("a", 64)
	if got := s.request(http.MethodGet, target, "", nil); got.code != 401 || !strings.Contains(got.header.Get("WWW-Authenticate"), "Basic") || !strings.Contains(got.body, "UNAUTHORIZED") {
		t.Errorf("without credentials: %d %v %s", got.code, got.header, got.body)
	}
	login := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("alice:secret"))}}
	if got := s.request(http.MethodGet, target, "", login); got.code != 200 {
		t.Errorf("with credentials: %d %s", got.code, got.body)
	}
}

// TestGarbageCollectReferrers: with --delete-untagged, referrers of a tagged image stay, and
// referrers of nothing that stays go.
func TestGarbageCollectReferrers(t *testing.T) {
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	image := s.pushImage("ns/app:v1", "kept")
	untagged := s.pushImage("ns/app:tmp", "not kept")
	key := signtest.NewKey(t, "ecdsa-p256")
	sign := func(subject string) string {
		a := signtest.Referrer(digest.Digest(subject), key.Bundle(signtest.Statement(digest.Digest(subject), signatures.PredicateCosignSign, nil)))
		s.pushArtifact("ns/app", a.Digest.String(), a)
		return a.Digest.String()
	}
	kept, gone := sign(image), sign(untagged)
	aboutSignature := s.attach("ns/app", kept, "example/note", "about the signature")
	if got := s.request(http.MethodDelete, "/v2/ns/app/manifests/tmp", "", nil); got.code != http.StatusAccepted {
		t.Fatalf("untag: %d %s", got.code, got.body)
	}
	if got := s.image(image).Signatures; len(got) != 1 {
		t.Fatalf("signatures are %+v", got)
	}
	s.stop()
	config := filepath.Join(s.dir, "config.yml")
	command(t, nil, binary, "garbage-collect", "--delete-untagged", config, "--data-dir", s.dir)
	s.start()
	for name, code := range map[string]int{image: 200, kept: 200, aboutSignature: 200, untagged: 404, gone: 404} {
		got := s.request(http.MethodGet, "/v2/ns/app/manifests/"+name, "", http.Header{"Accept": {imagespec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json"}})
		if got.code != code {
			t.Errorf("%s: %d, want %d", name, got.code, code)
		}
	}
	if _, all := s.referrers("ns/app", image, ""); !slices.Equal(digests(all), []string{kept}) {
		t.Errorf("referrers of the image: %v", digests(all))
	}
	if _, all := s.referrers("ns/app", untagged, ""); len(all) != 0 {
		t.Errorf("referrers of what is gone: %v", digests(all))
	}
	if got := s.image(image).Signatures; len(got) != 1 {
		t.Errorf("signatures are %+v", got)
	}
}

// pushArtifact pushes a manifest with its blobs.
func (s *server) pushArtifact(repository, reference string, a signtest.Artifact) {
	s.t.Helper()
	for _, blob := range a.Blobs {
		s.pushBlob(repository, blob)
	}
	if got := s.putManifest(repository, reference, imagespec.MediaTypeImageManifest, string(a.Manifest)); got.code != http.StatusCreated {
		s.t.Fatalf("put: %d %s", got.code, got.body)
	}
}
