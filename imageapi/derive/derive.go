// Package derive turns the bytes of a manifest into an Image. The push path, the API's
// strategy and re-indexing all call it, so that they make the same Image of the same content.
//
// # Guarantees
//
// Image is a pure function: no clock, no network, no state. It takes any bytes and never
// panics; its result is bounded by a small multiple of its input. It makes an Image of every
// manifest that a registry accepts: unreadable parts (a config that is missing, is not JSON,
// or has fields of the wrong type) are left out, not refused.
//
// The fields follow OpenShift's imageutil.InternalImageWithMetadata and the
// image-registry's manifest handlers wherever a client can see them, and are
// complete where those drop things: OCI artifacts, indexes without mediaType or
// platforms, foreign layers.
package derive

import (
	"errors"
	"fmt"
	"math"
	"mime"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
)

// Media types of manifests. The OCI ones are in image-spec.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeSchema1            = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeSchema1Signed      = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	mediaTypeSchema1Layer       = "application/vnd.docker.container.image.rootfs.diff+x-gtar"
	mediaTypeDockerConfig       = "application/vnd.docker.container.image.v1+json"
)

// AnnotationPrefix starts tallyman's own annotations.
const AnnotationPrefix = "tallyman.dev/"

// Annotations that describe the content of an Image. The last three are tallyman's own.
const (
	AnnotationLayersOrder  = imagev1.DockerImageLayersOrderAnnotation
	AnnotationBlobStored   = imagev1.ImageManifestBlobStoredAnnotation
	AnnotationArtifactType = AnnotationPrefix + "artifact-type" // of an OCI artifact
	AnnotationSubject      = AnnotationPrefix + "subject"       // digest of the manifest this one is about
	AnnotationPlatform     = AnnotationPrefix + "platform"      // os/architecture[/variant], as in `--platform`
)

// DefaultInlineLimit is the default of Input.InlineLimit.
const DefaultInlineLimit = 256 << 10

// ErrDigest is returned when bytes do not have the digest they are said to have.
var ErrDigest = errors.New("digest does not match the content")

// Input is the source of an Image.
type Input struct {
	// MediaType of the manifest as it was pushed or posted. If empty, the
	// manifest itself tells.
	MediaType string
	// Manifest is the manifest's exact bytes.
	Manifest []byte
	// Config is the config blob, nil if it is not to be had.
	Config []byte
	// Digest is the digest of the manifest; if set it is verified.
	Digest digest.Digest
	// Reference is the pull reference for dockerImageReference.
	Reference string
	// InlineLimit is how many bytes manifest and config may have together to
	// be kept inline in the Image. Above it, the annotation
	// image.openshift.io/manifestBlobStored says that the registry has them.
	// 0 means DefaultInlineLimit, a negative number keeps nothing inline.
	InlineLimit int64
}

// Image derives an Image. It fails if the manifest is not the JSON of a
// manifest, or, with ErrDigest, if its digest is not Input.Digest or the
// config's is not the one the manifest gives.
func Image(in Input) (*imagev1.Image, error) {
	m, err := parseManifest(in.Manifest)
	if err != nil {
		return nil, err
	}
	kind := m.kind(in.MediaType)
	name, err := m.verify(in, kind)
	if err != nil {
		return nil, err
	}
	image := &imagev1.Image{
		DockerImageReference:         in.Reference,
		DockerImageManifestMediaType: kind,
	}
	image.Name = name.String()
	image.Annotations = map[string]string{}
	switch kind {
	case MediaTypeDockerManifestList, imagespec.MediaTypeImageIndex:
		err = m.deriveIndex(image)
	case MediaTypeSchema1:
		err = m.deriveSchema1(image)
	default:
		err = m.deriveImage(image, in.Config)
	}
	if err != nil {
		return nil, err
	}
	inline(image, in)
	annotate(image, AnnotationArtifactType, m.artifactType())
	annotate(image, AnnotationSubject, string(m.subject()))
	return image, nil
}

func annotate(image *imagev1.Image, key, value string) {
	if value != "" {
		image.Annotations[key] = value
	}
}

// IsIndex reports whether a manifest of this media type lists other manifests.
func IsIndex(mediaType string) bool {
	return mediaType == MediaTypeDockerManifestList || mediaType == imagespec.MediaTypeImageIndex
}

// kind returns the manifest's media type: the one it came with, its own, or the one that its
// fields imply.
func (m *manifest) kind(mediaType string) string {
	if base, _, err := mime.ParseMediaType(mediaType); err == nil {
		mediaType = base
	}
	for _, candidate := range []string{mediaType, m.MediaType} {
		switch candidate {
		case MediaTypeSchema1, MediaTypeSchema1Signed:
			return MediaTypeSchema1 // as OpenShift: signed or not
		case MediaTypeDockerManifest, MediaTypeDockerManifestList,
			imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageIndex:
			return candidate
		}
	}
	switch {
	case m.SchemaVersion == 1:
		return MediaTypeSchema1
	case m.isIndex:
		return imagespec.MediaTypeImageIndex
	case m.Config != nil && m.Config.MediaType == mediaTypeDockerConfig:
		return MediaTypeDockerManifest
	}
	return imagespec.MediaTypeImageManifest
}

// verify returns the manifest's digest, and checks it and the config's.
func (m *manifest) verify(in Input, kind string) (digest.Digest, error) {
	content := in.Manifest
	if kind == MediaTypeSchema1 {
		content = schema1Payload(in.Manifest)
	}
	name := digest.FromBytes(content)
	if in.Digest != "" {
		if err := in.Digest.Validate(); err != nil {
			return "", fmt.Errorf("manifest digest %q: %w", in.Digest, err)
		}
		if name = in.Digest.Algorithm().FromBytes(content); name != in.Digest {
			return "", fmt.Errorf("manifest %s: %w: it is %s", in.Digest, ErrDigest, name)
		}
	}
	if in.Config == nil || m.Config == nil || m.Config.Digest.Validate() != nil {
		return name, nil
	}
	if got := m.Config.Digest.Algorithm().FromBytes(in.Config); got != m.Config.Digest {
		return "", fmt.Errorf("config %s: %w: it is %s", m.Config.Digest, ErrDigest, got)
	}
	return name, nil
}

// inline keeps the texts of manifest and config in the image if they are small
// enough, and text: JSON strings cannot hold other bytes exactly.
func inline(image *imagev1.Image, in Input) {
	limit := in.InlineLimit
	if limit == 0 {
		limit = DefaultInlineLimit
	}
	if int64(len(in.Manifest))+int64(len(in.Config)) > limit || !utf8.Valid(in.Manifest) {
		image.Annotations[AnnotationBlobStored] = "true"
		return
	}
	image.DockerImageManifest = string(in.Manifest)
	if !IsIndex(image.DockerImageManifestMediaType) && utf8.Valid(in.Config) {
		image.DockerImageConfig = string(in.Config)
	}
}

// sum adds sizes. Negative ones, which no content has, count as nothing, and
// the sum of absurd ones stays at the largest number there is.
func sum(sizes ...int64) int64 {
	var total int64
	for _, size := range sizes {
		if size <= 0 {
			continue
		}
		if total > math.MaxInt64-size {
			return math.MaxInt64
		}
		total += size
	}
	return total
}
