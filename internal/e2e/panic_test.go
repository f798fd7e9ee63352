package e2e

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPanickingManifest pushes a manifest on which distribution's manifest store
// panics when it is read. The server serves on, starts again with and without its
// store, and the manifest can be deleted as in plain distribution.
func TestPanickingManifest(t *testing.T) {
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	s := startWithConfig(t, `
version: 0.1
storage: {filesystem: {rootdirectory: DIR/registry}, delete: {enabled: true}}
http: {addr: ADDR}
imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, store: {path: DIR/tallyman.db}}
`)
	config := s.pushBlob("a/b", []byte("{}"))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"manifests":"x","manifests":null,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[]}`, config)
	name := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest)))
	for _, reference := range []string{name, "v1", strings.ReplaceAll(config, ":", "-"), strings.ReplaceAll(config, ":", "-") + ".sig"} {
		if got := s.putManifest("a/b", reference, mediaType, manifest); got.code != http.StatusCreated {
			t.Fatalf("PUT %s: %d %s", reference, got.code, got.body)
		}
	}
	if tags := s.image(name).Annotations["tallyman.dev/tags"]; strings.Count(tags, ",") != 2 {
		t.Errorf("the Image has the tags %q, want three", tags)
	}
	other := s.pushImage("a/other:v1", "other")
	for _, withStore := range []bool{true, false, false} {
		s.stop()
		if !withStore {
			if err := os.Remove(filepath.Join(s.dir, "tallyman.db")); err != nil {
				t.Fatal(err)
			}
		}
		s.start()
		eventually(t, "existing content is recorded", func() error {
			return s.status(api+"/images/"+other, http.StatusOK)
		})
		eventually(t, "the resync is over", func() error {
			if n, starts := strings.Count(s.logText(), "resync complete"), strings.Count(s.logText(), "stopped")+1; n != starts {
				return fmt.Errorf("%d of %d", n, starts)
			}
			return nil
		})
	}
	if n := strings.Count(s.logText(), "recovered from a panic"); n == 0 {
		t.Error("nothing has panicked: the manifest does not test anything any more")
	}
	if n := strings.Count(s.logText(), "still cannot record"); n != 0 {
		t.Errorf("the manifest was tried again %d times", n)
	}
	if got := s.request(http.MethodDelete, "/v2/a/b/manifests/"+name, "", nil); got.code != http.StatusAccepted {
		t.Errorf("DELETE: %d %s, want 202", got.code, got.body)
	}
	if got := s.request(http.MethodGet, "/v2/a/b/manifests/"+name, "", nil); got.code != http.StatusNotFound {
		t.Errorf("GET after DELETE: %d", got.code)
	}
}
