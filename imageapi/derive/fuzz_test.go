package derive_test

import (
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures/manifest"
)

func base64URL(b []byte) string { return base64.URLEncoding.EncodeToString(b) }

// FuzzImage: whatever the bytes, no panic, the same result twice, metadata that
// is valid JSON, and a result bounded by the input.
func FuzzImage(f *testing.F) {
	f.Add(imagespec.MediaTypeImageManifest, []byte(manifestOf("", imagespec.MediaTypeImageConfig, imageConfig, layers(layer(layerA, 1, tarGzip)))), []byte(imageConfig))
	f.Add("", []byte(`{"schemaVersion":2,"manifests":[{"platform":null}]}`), []byte(nil))
	f.Add(manifest.MediaTypeSchema1, []byte(`{"schemaVersion":1,"fsLayers":[{}],"history":[{"v1Compatibility":"{}"}],"signatures":[{"protected":"e30"}]}`), []byte(nil))
	f.Add(manifest.MediaTypeArtifact, []byte(`{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"x/y","blobs":[{"size":1}]}`), []byte(nil))
	f.Add(imagespec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"manifests":"x","manifests":null,"config":{"size":2},"layers":[]}`), []byte("{}"))
	f.Add("text/plain; x", []byte(`{"layers":null,"layers":[{"size":-1}],"subject":7}`), []byte(`{"config":{"Env":1}}`))
	f.Fuzz(func(t *testing.T, mediaType string, content, config []byte) {
		in := raw{MediaType: mediaType, Manifest: content, Config: config}
		if config != nil {
			// Make the config's digest right where the manifest has one, so that
			// the fuzzer gets past the check.
			var m struct {
				Config struct{ Digest digest.Digest }
			}
			if json.Unmarshal(content, &m) == nil && m.Config.Digest.Validate() == nil && m.Config.Digest != digest.FromBytes(config) {
				in.Config = nil
			}
		}
		image, err := in.derive()
		again, againErr := in.derive()
		if (err == nil) != (againErr == nil) {
			t.Fatalf("one input, two outcomes: %v and %v", err, againErr)
		}
		if err != nil {
			return
		}
		first, err := json.Marshal(image)
		if err != nil {
			t.Fatalf("the Image cannot be encoded: %v", err)
		}
		second, err := json.Marshal(again)
		if err != nil || string(first) != string(second) {
			t.Fatalf("one input, two Images:\n%s\n%s", first, second)
		}
		metadata(t, image)
		if limit := 64*(len(content)+len(config)) + 4096; len(first) > limit {
			t.Fatalf("%d bytes in, %d bytes out", len(content)+len(config), len(first))
		}
	})
}
