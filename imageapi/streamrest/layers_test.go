package streamrest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/imagetest"
	"tallyman/signatures/manifest"
)

// pushManifest records a push of a manifest, with a config if it has one.
func (h *house) pushManifest(repository, tag, body, config string) digest.Digest {
	h.t.Helper()
	parsed, err := manifest.Parse("", []byte(body))
	if err != nil {
		h.t.Fatal(err)
	}
	p := catalog.Push{Repository: repository, Tag: tag, Digest: digest.FromString(body), Manifest: parsed, Config: []byte(config), Host: "host:5000"}
	derived, err := h.catalog.Derive(p)
	if err == nil {
		err = h.catalog.Record(h.t.Context(), p, derived)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return p.Digest
}

func TestLayers(t *testing.T) {
	h := newHouse(t)
	image := h.pushManifest("team/app", "v1", imagetest.Manifest, imagetest.Config).String()
	index := h.pushManifest("team/app", "v2", fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":5}]}`, image), "").String()
	h.push("secret/app:v1", "elsewhere")
	gone := h.push("team/app:v3", "gone")
	if _, err := h.catalog.Remove(t.Context(), "team/app", gone); err != nil {
		t.Fatal(err)
	}
	obj, err := h.layers.Get(h.of("team"), "app", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shown := obj.(*imagev1.ImageStreamLayers)
	if got, want := slices.Sorted(maps.Keys(shown.Images)), slices.Sorted(slices.Values([]string{image, index})); !slices.Equal(got, want) {
		t.Errorf("images %v, want %v", got, want)
	}
	if got, want := slices.Sorted(maps.Keys(shown.Blobs)), slices.Sorted(slices.Values([]string{image, index, imagetest.Layer, imagetest.ConfigDigest})); !slices.Equal(got, want) {
		t.Errorf("blobs %v, want %v", got, want)
	}
	if of := shown.Images[image]; of.ImageMissing || !slices.Equal(of.Layers, []string{imagetest.Layer}) || of.Config == nil || *of.Config != imagetest.ConfigDigest || len(of.Manifests) > 0 {
		t.Errorf("the image has %+v", of)
	}
	if of := shown.Images[index]; of.Layers != nil || of.Config != nil || !slices.Equal(of.Manifests, []string{image}) {
		t.Errorf("the index has %+v", of)
	}
	if layer := shown.Blobs[imagetest.Layer]; layer.LayerSize == nil || *layer.LayerSize != 10 || layer.MediaType == "" {
		t.Errorf("the layer is %+v", layer)
	}
	if _, err := h.layers.Get(h.of("team"), "none", &metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("of no stream: %v", err)
	}
}

// TestMissingLayers: an image of the history that is gone is said to be missing.
func TestMissingLayers(t *testing.T) {
	h := newHouse(t)
	gone := h.push("team/app:v1", "a")
	h.push("team/app:v1", "b")
	if _, err := h.catalog.Remove(t.Context(), "team/app", gone); err != nil {
		t.Fatal(err)
	}
	obj, err := h.layers.Get(h.of("team"), "app", &metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if shown := obj.(*imagev1.ImageStreamLayers); len(shown.Images) != 2 || !shown.Images[gone.String()].ImageMissing {
		t.Errorf("images %+v", shown.Images)
	}
}
