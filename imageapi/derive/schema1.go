package derive

import (
	"encoding/json"
	"errors"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures/manifest"
)

// Docker schema 1 reaches the API only in posted Images; registries no longer
// take it. Format: distribution's former docs/spec/manifest-v2-1.md.

// deriveSchema1 fills image from a schema 1 manifest, whose layers are listed
// from the top down, with their metadata in v1 history entries.
func deriveSchema1(image *imagev1.Image, m *manifest.Manifest) error {
	image.Annotations[AnnotationLayersOrder] = imagev1.DockerImageLayersOrderAscending
	var sizes []int64
	seen := map[string]bool{}
	for _, layer := range slices.Backward(m.History) {
		name, size := layer.BlobSum, max(parseConfig([]byte(layer.V1Compatibility)).Size, 0)
		image.DockerImageLayers = append(image.DockerImageLayers, imagev1.ImageLayer{
			Name: name, LayerSize: size, MediaType: mediaTypeSchema1Layer,
		})
		if !seen[name] {
			seen[name] = true
			sizes = append(sizes, size)
		}
	}
	top := []byte(m.History[0].V1Compatibility)
	if !json.Valid(top) {
		return errors.New("not a schema 1 manifest: history[0].v1Compatibility: it is not JSON")
	}
	c := parseConfig(top)
	metadata := c.metadata()
	metadata.Size = sum(sizes...)
	annotate(image, AnnotationPlatform, platform(c))
	return setMetadata(image, metadata)
}
