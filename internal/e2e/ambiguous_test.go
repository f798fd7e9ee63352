package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestAmbiguousManifests: an Image has the content that clients pull, and says which fields they
// may read differently. Fields of other formats do not prevent an Image.
func TestAmbiguousManifests(t *testing.T) {
	const ociImage = "application/vnd.oci.image.manifest.v1+json"
	s := startServer(t)
	shown, run := s.pushBlob("app", []byte("{}")), s.pushBlob("app", []byte("{ }"))
	descriptor := func(digest string, size int) string {
		return fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":%d}`, digest, size)
	}
	a, b := descriptor(shown, 2), descriptor(run, 3)
	for name, test := range map[string]struct{ more, layer, fields string }{
		"two spellings":       {`,"Config":` + b + `,"Layers":[` + b + `]`, run, "config,layers"},
		"history of schema 1": {`,"history":1`, shown, "history"},
		"an unknown field":    {`,"x":{"y":1}`, shown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, ociImage, a, a, test.more)
			if got := s.putManifest("app", "t", ociImage, content); got.code != http.StatusCreated {
				t.Fatalf("%d %s", got.code, got.body)
			}
			digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(content)))
			got := s.kubectl("get", "image", digest, "-o", `jsonpath={.dockerImageLayers[*].name} {.dockerImageMetadata.Id} {.metadata.annotations.tallyman\.dev/ambiguous}`)
			if want := fmt.Sprintf("%s %s %s", test.layer, test.layer, test.fields); strings.TrimSpace(got) != strings.TrimSpace(want) {
				t.Errorf("the Image is of %q, want %q", got, want)
			}
			if logged := strings.Contains(s.logText(), "ambiguous manifest"); test.fields != "" && !logged {
				t.Error("the log does not say that the manifest is ambiguous")
			}
		})
	}
}

// TestPostedManifests: what a client says of a manifest counts less than the manifest. JSON that
// is no manifest is refused, in words.
func TestPostedManifests(t *testing.T) {
	s := startServer(t)
	index := `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:` + strings.Repeat("ab", 32) + `","size":5}]}`
	post := func(name, mediaType, manifest, annotations string) answer {
		t.Helper()
		text, err := json.Marshal(manifest)
		if err != nil {
			t.Fatal(err)
		}
		return s.call("POST", api+"/images", "application/json", fmt.Sprintf(
			`{"kind":"Image","apiVersion":"image.openshift.io/v1","metadata":{"name":%q%s},"dockerImageReference":"a/b","dockerImageManifestMediaType":%q,"dockerImageManifest":%s}`,
			name, annotations, mediaType, text))
	}
	got := post("index", "application/vnd.oci.image.manifest.v1+json", index, "")
	if got.code != 201 || !strings.Contains(got.body, `"dockerImageManifestMediaType":"application/vnd.oci.image.index.v1+json"`) || !strings.Contains(got.body, `"dockerImageManifests"`) {
		t.Errorf("an index that is called an image: %d %s", got.code, got.body)
	}
	if got := post("stored", "", index, `,"annotations":{"image.openshift.io/manifestBlobStored":"true"}`); got.code != 201 || strings.Contains(got.body, `"dockerImageManifest":`) {
		t.Errorf("an index in the registry: %d %s", got.code, got.body)
	}
	for _, manifest := range []string{"{}", `{"schemaVersion":9}`, `{"a":1}`, "hello"} {
		if got := post("none", "application/vnd.oci.image.manifest.v1+json", manifest, ""); got.code != 422 || !strings.Contains(got.body, "not a manifest: ") {
			t.Errorf("%s: %d %s", manifest, got.code, got.body)
		}
	}
}
