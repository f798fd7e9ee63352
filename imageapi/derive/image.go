package derive

import (
	"encoding/json"
	"strings"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/openshift/api/image/docker10"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/signatures/manifest"
)

// metadataVersion is the version of DockerImage that Images carry.
const metadataVersion = "1.0"

// deriveImage fills image from a schema 2 or OCI image manifest, or an artifact
// of that form.
func deriveImage(image *imagev1.Image, m *manifest.Manifest, config []byte) error {
	image.Annotations[AnnotationLayersOrder] = imagev1.DockerImageLayersOrderAscending
	metadata := docker10.DockerImage{}
	var size []int64
	seen := map[string]bool{}
	if m.Config != nil {
		c := parseConfig(config)
		metadata = c.metadata()
		metadata.ID = m.Config.Digest.String()
		seen[metadata.ID] = true
		if config != nil {
			size = append(size, int64(len(config)))
		} else {
			size = append(size, m.Config.Size)
		}
		if manifest.IsImageConfig(m.Config.MediaType) {
			annotate(image, AnnotationPlatform, platform(c))
		}
	}
	if metadata.Created.IsZero() {
		metadata.Created = created(m)
	}
	for _, layer := range m.Layers {
		name := layer.Digest.String()
		image.DockerImageLayers = append(image.DockerImageLayers, imagev1.ImageLayer{
			Name: name, LayerSize: max(layer.Size, 0), MediaType: layer.MediaType,
		})
		if !seen[name] {
			seen[name] = true
			size = append(size, layer.Size)
		}
	}
	metadata.Size = sum(size...)
	return setMetadata(image, metadata)
}

// deriveIndex fills image from a manifest list or index. Entries without a
// platform (artifacts, nested indexes) are kept, with the platform left empty.
func deriveIndex(image *imagev1.Image, m *manifest.Manifest) error {
	image.Annotations[AnnotationLayersOrder] = "" // as OpenShift: the key is there
	for _, entry := range m.Manifests {
		sub := imagev1.ImageManifest{
			Digest: entry.Digest.String(), MediaType: entry.MediaType, ManifestSize: max(entry.Size, 0),
		}
		if entry.Platform != nil {
			sub.Architecture, sub.OS, sub.Variant = entry.Platform.Architecture, entry.Platform.OS, entry.Platform.Variant
		}
		image.DockerImageManifests = append(image.DockerImageManifests, sub)
	}
	return setMetadata(image, docker10.DockerImage{ID: image.Name, Created: created(m)})
}

// created returns the creation time that the manifest's annotations give.
func created(m *manifest.Manifest) metav1.Time {
	t, err := time.Parse(time.RFC3339, m.Annotations[imagespec.AnnotationCreated])
	if err != nil {
		return metav1.Time{}
	}
	return metav1.NewTime(t)
}

// setMetadata writes dockerImageMetadata.
func setMetadata(image *imagev1.Image, metadata docker10.DockerImage) error {
	if year := metadata.Created.UTC().Year(); year < 1 || year > 9999 {
		metadata.Created = metav1.Time{} // RFC 3339 has no such year, so no client could read it
	}
	metadata.TypeMeta = metav1.TypeMeta{Kind: "DockerImage", APIVersion: docker10.GroupVersion.String()}
	raw, err := json.Marshal(metadata)
	if err != nil {
		return err
	}
	image.DockerImageMetadata.Raw = raw
	image.DockerImageMetadataVersion = metadataVersion
	return nil
}

// platform returns os/architecture[/variant], as in `--platform`; "" without an os.
func platform(c *config) string {
	if c.OS == "" {
		return ""
	}
	return strings.TrimRight(strings.Join([]string{c.OS, c.Architecture, c.Variant}, "/"), "/")
}
