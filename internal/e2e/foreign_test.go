package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestForeignContent: a configuration that says nothing of it accepts layers that are elsewhere,
// and indexes whose children are not there; one that refuses ambiguous manifests says which
// fields are.
func TestForeignContent(t *testing.T) {
	const (
		index   = "application/vnd.oci.image.index.v1+json"
		image   = "application/vnd.oci.image.manifest.v1+json"
		schema2 = "application/vnd.docker.distribution.manifest.v2+json"
	)
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, ambiguousmanifests: refuse}\n")
	config := s.pushBlob("a/b", []byte("{}"))
	absent := "sha256:" + strings.Repeat("a", 64)
	for name, test := range map[string]struct {
		mediaType, manifest string
		status              int
		answer              string
	}{
		"a Windows layer": {schema2, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":%q,"size":2},`+
			`"layers":[{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":%q,"size":5,"urls":["https://mcr.microsoft.com/v2/windows/blobs/%s"]}]}`, schema2, config, absent, absent), http.StatusCreated, ""},
		"an index with absent children": {index, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":7}]}`, index, image, absent), http.StatusCreated, ""},
		"an ambiguous manifest": {image, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},`+
			`"layers":[],"Layers":[]}`, image, config), http.StatusBadRequest, "MANIFEST_INVALID"},
	} {
		got := s.putManifest("a/b", "v1", test.mediaType, test.manifest)
		if got.code != test.status || !strings.Contains(got.body, test.answer) {
			t.Errorf("%s: %d %s, want %d %s", name, got.code, got.body, test.status, test.answer)
			continue
		}
		if got.code == http.StatusCreated {
			s.image(got.header.Get("Docker-Content-Digest"))
		}
	}
}
