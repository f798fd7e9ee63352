// Package derive turns a manifest into an Image. The push path, the API's
// strategy and re-indexing all call it, so that they make the same Image of the same content.
//
// # Guarantees
//
// Image is a pure function: no clock, no network, no state. It takes any manifest and never
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
	"strings"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures/manifest"
)

// mediaTypeSchema1Layer is the media type of the layers of schema 1.
const mediaTypeSchema1Layer = "application/vnd.docker.container.image.rootfs.diff+x-gtar"

// AnnotationPrefix starts tallyman's own annotations.
const AnnotationPrefix = "tallyman.dev/"

// Annotations that describe the content of an Image. The last four are tallyman's own.
const (
	AnnotationLayersOrder  = imagev1.DockerImageLayersOrderAnnotation
	AnnotationBlobStored   = imagev1.ImageManifestBlobStoredAnnotation
	AnnotationArtifactType = AnnotationPrefix + "artifact-type" // of an OCI artifact
	AnnotationSubject      = AnnotationPrefix + "subject"       // digest of the manifest this one is about
	AnnotationPlatform     = AnnotationPrefix + "platform"      // os/architecture[/variant], as in `--platform`
	AnnotationAmbiguous    = manifest.AnnotationAmbiguous       // fields that readers may read differently
)

// DefaultInlineLimit is the default of Input.InlineLimit.
const DefaultInlineLimit = 256 << 10

// ErrDigest is returned when bytes do not have the digest they are said to have.
var ErrDigest = errors.New("digest does not match the content")

// Input is the source of an Image.
type Input struct {
	// Manifest is the manifest. Required.
	Manifest *manifest.Manifest
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

// Image derives an Image. It fails with ErrDigest if the manifest's digest is not Input.Digest,
// or the config's is not the one the manifest gives.
func Image(in Input) (*imagev1.Image, error) {
	m := in.Manifest
	name, err := verify(in)
	if err != nil {
		return nil, err
	}
	image := &imagev1.Image{
		DockerImageReference:         in.Reference,
		DockerImageManifestMediaType: m.MediaType,
	}
	image.Name = name.String()
	image.Annotations = map[string]string{}
	switch {
	case m.IsIndex():
		err = deriveIndex(image, m)
	case m.MediaType == manifest.MediaTypeSchema1:
		err = deriveSchema1(image, m)
	default:
		err = deriveImage(image, m, in.Config)
	}
	if err != nil {
		return nil, err
	}
	inline(image, in)
	annotate(image, AnnotationArtifactType, m.ArtifactType)
	annotate(image, AnnotationSubject, m.Subject.String())
	annotate(image, AnnotationAmbiguous, strings.Join(m.Ambiguous, ","))
	return image, nil
}

func annotate(image *imagev1.Image, key, value string) {
	if value != "" {
		image.Annotations[key] = value
	}
}

// verify returns the manifest's digest, and checks it and the config's.
func verify(in Input) (digest.Digest, error) {
	algorithm := digest.Canonical
	if in.Digest != "" {
		if err := in.Digest.Validate(); err != nil {
			return "", fmt.Errorf("manifest digest %q: %w", in.Digest, err)
		}
		algorithm = in.Digest.Algorithm()
	}
	name := in.Manifest.Digest(algorithm)
	if in.Digest != "" && name != in.Digest {
		return "", fmt.Errorf("manifest %s: %w: it is %s", in.Digest, ErrDigest, name)
	}
	config := in.Manifest.Config
	if in.Config == nil || config == nil || config.Digest.Validate() != nil {
		return name, nil
	}
	if got := config.Digest.Algorithm().FromBytes(in.Config); got != config.Digest {
		return "", fmt.Errorf("config %s: %w: it is %s", config.Digest, ErrDigest, got)
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
	if int64(len(in.Manifest.Content))+int64(len(in.Config)) > limit || !utf8.Valid(in.Manifest.Content) {
		image.Annotations[AnnotationBlobStored] = "true"
		return
	}
	image.DockerImageManifest = string(in.Manifest.Content)
	if !in.Manifest.IsIndex() && utf8.Valid(in.Config) {
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
