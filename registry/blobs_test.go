package registry

import (
	"bytes"
	"fmt"
	"path"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/rules"
	"tallyman/registry/tracker"
)

// TestPushedConfig: the Image of a push has the config that the client has just pushed, in one request
// or in several, without a read of the storage, which has something else by now.
func TestPushedConfig(t *testing.T) {
	h := newHouse(t, tracker.Reject)
	for name, parts := range map[string]int{"one": 1, "two": 2} {
		config := fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","author":%q}`, name)
		blobs := h.repository(h.namespace, "app").Blobs(t.Context())
		w, err := blobs.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for part := range parts {
			if part > 0 {
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if w, err = blobs.Resume(t.Context(), w.ID()); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := w.ReadFrom(bytes.NewReader(config[part*len(config)/parts : (part+1)*len(config)/parts])); err != nil {
				t.Fatal(err)
			}
		}
		stored, err := w.Commit(t.Context(), imagespec.Descriptor{Digest: digest.FromBytes(config)})
		if err != nil {
			t.Fatal(err)
		}
		file := path.Join("/docker/registry/v2/blobs/sha256", stored.Digest.Encoded()[:2], stored.Digest.Encoded(), "data")
		if err := h.driver.PutContent(t.Context(), file, bytes.Repeat([]byte(" "), len(config))); err != nil {
			t.Fatal(err)
		}
		pushed, err := h.putContent("app", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
			imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageConfig, stored.Digest, stored.Size))
		if err != nil {
			t.Fatal(err)
		}
		image, err := h.catalog.Get(t.Context(), pushed)
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.Metadata(image); got.Author != name {
			t.Errorf("%s: the image has the metadata %+v", name, got)
		}
	}
}
