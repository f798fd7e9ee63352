package derive

import (
	"encoding/json"
	"strings"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/openshift/api/image/docker10"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// metadataVersion is the version of DockerImage that Images carry.
const metadataVersion = "1.0"

func isImageConfig(mediaType string) bool {
	return mediaType == imagespec.MediaTypeImageConfig || mediaType == mediaTypeDockerConfig || mediaType == ""
}

// deriveImage fills image from a schema 2 or OCI image manifest, or an artifact
// of that form.
func (m *manifest) deriveImage(image *imagev1.Image, config []byte) error {
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
		if isImageConfig(m.Config.MediaType) {
			annotate(image, AnnotationPlatform, c.platform().String())
		}
	}
	if metadata.Created.IsZero() {
		metadata.Created = m.created()
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
func (m *manifest) deriveIndex(image *imagev1.Image) error {
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
	return setMetadata(image, docker10.DockerImage{ID: image.Name, Created: m.created()})
}

// created returns the creation time that the manifest's annotations give.
func (m *manifest) created() metav1.Time {
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

// String returns os/architecture[/variant][:os.version], "" if neither os nor
// architecture is known.
func (p platform) String() string {
	if p.OS == "" && p.Architecture == "" {
		return ""
	}
	s := strings.TrimSuffix(strings.Join([]string{p.OS, p.Architecture, p.Variant}, "/"), "/")
	if p.OSVersion != "" {
		s += ":" + p.OSVersion
	}
	return s
}
