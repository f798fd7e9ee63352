package imageapi

import (
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/storage/memory"
)

// TestRemoveAgain removes an Image whose deletion failed after its last repository was
// removed, as an outage between the two does.
func TestRemoveAgain(t *testing.T) {
	w, err := NewWriter(memory.New(memory.Options{}), 0, SignatureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	push := Push{Repository: "a", Digest: digest.FromBytes(manifest), MediaType: "application/vnd.oci.image.index.v1+json", Manifest: manifest}
	derived, err := w.Derive(push)
	if err == nil {
		err = w.Record(t.Context(), push, derived)
	}
	if err == nil {
		err = w.update(t.Context(), push.Digest, false, func(image *imagev1.Image) error {
			removeRepository(image, "a")
			return nil
		})
	}
	if err == nil {
		err = w.Remove(t.Context(), "a", push.Digest)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Get(t.Context(), push.Digest); !apierrors.IsNotFound(err) {
		t.Errorf("the Image is still there: %v", err)
	}
}
