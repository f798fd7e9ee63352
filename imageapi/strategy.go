package imageapi

import (
	"context"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"

	"tallyman/imageapi/derive"
)

// managedSignatureAnnotation is removed from every signature, as OpenShift does.
const managedSignatureAnnotation = "image.openshift.io/managed-signature"

// imageStrategy fills in, resets and refuses fields when an Image is written. It follows
// OpenShift's pkg/image/apiserver/registry/image/strategy.go, but never ignores an error.
type imageStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
	verifier Verifier // may be nil
}

var (
	_ rest.RESTCreateStrategy = imageStrategy{}
	_ rest.RESTUpdateStrategy = imageStrategy{}
	_ rest.RESTDeleteStrategy = imageStrategy{}
)

type registryWriteKey struct{}

// asRegistry marks a write as the registry's own: it may write fields that belong to the
// server.
func asRegistry(ctx context.Context) context.Context {
	return context.WithValue(ctx, registryWriteKey{}, true)
}

func isRegistry(ctx context.Context) bool {
	own, _ := ctx.Value(registryWriteKey{}).(bool)
	return own
}

// NamespaceScoped implements rest.RESTCreateStrategy: Images are cluster scoped.
func (imageStrategy) NamespaceScoped() bool { return false }

// AllowCreateOnUpdate implements rest.RESTUpdateStrategy: PUT does not create.
func (imageStrategy) AllowCreateOnUpdate(context.Context) bool { return false }

// AllowUnconditionalUpdate implements rest.RESTUpdateStrategy: PUT needs a
// resourceVersion.
func (imageStrategy) AllowUnconditionalUpdate(context.Context) bool { return false }

// Canonicalize implements rest.RESTCreateStrategy.
func (imageStrategy) Canonicalize(runtime.Object) {}

// WarningsOnCreate implements rest.RESTCreateStrategy.
func (imageStrategy) WarningsOnCreate(context.Context, runtime.Object) []string { return nil }

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (imageStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

// PrepareForCreate implements rest.RESTCreateStrategy. It leaves invalid fields as they are,
// for Validate to refuse.
func (s imageStrategy) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	image := obj.(*imagev1.Image)
	if !isRegistry(ctx) {
		removeOwnAnnotations(image)
		ownSignatures(image, nil)
		if image.DockerImageManifest != "" {
			if derived, err := deriveFrom(image); err == nil {
				fill(image, derived)
			}
		}
	}
	s.finish(image)
}

// PrepareForUpdate implements rest.RESTUpdateStrategy. It restores the fields that a client
// may not change, without an error, as OpenShift does.
func (s imageStrategy) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	image, before := obj.(*imagev1.Image), old.(*imagev1.Image)
	if !isRegistry(ctx) {
		restoreOwnAnnotations(image, before)
		image.DockerImageMetadata = *before.DockerImageMetadata.DeepCopy()
		image.DockerImageMetadataVersion = before.DockerImageMetadataVersion
		image.DockerImageLayers = before.DockerImageLayers
		if before.DockerImageSignatures != nil {
			image.DockerImageSignatures = before.DockerImageSignatures
		}
		protectContent(image, before)
		restoreManifest(image, before)
		restoreSignatures(image, before)
		if s.verifier != nil {
			keepConditions(image, before)
		}
	}
	s.finish(image)
}

// finish is the last step of every write.
func (s imageStrategy) finish(image *imagev1.Image) {
	// Validate reports invalid metadata.
	_ = normalizeMetadata(image)
	stampIndex(image)
	if image.Annotations[derive.AnnotationBlobStored] == "true" && manifestError(image) == nil {
		image.DockerImageManifest, image.DockerImageConfig = "", ""
	}
	for i := range image.Signatures {
		delete(image.Signatures[i].Annotations, managedSignatureAnnotation)
	}
	s.assess(image)
}

// deriveFrom derives the fields of an Image from its own manifest and config.
func deriveFrom(image *imagev1.Image) (*imagev1.Image, error) {
	in := derive.Input{
		MediaType: image.DockerImageManifestMediaType,
		Manifest:  []byte(image.DockerImageManifest),
		Reference: image.DockerImageReference,
	}
	if image.DockerImageConfig != "" {
		in.Config = []byte(image.DockerImageConfig)
	}
	if name := digest.Digest(image.Name); name.Validate() == nil {
		in.Digest = name
	}
	return derive.Image(in)
}

// manifestError returns the reason why the image's manifest is invalid, if it has one.
func manifestError(image *imagev1.Image) error {
	if image.DockerImageManifest == "" {
		return nil
	}
	_, err := deriveFrom(image)
	return err
}

// fill takes over the fields derived from image's manifest. Two fields of the client are
// better than derived ones: metadata when there is no config, and the layer sizes of schema 1,
// which its manifest lacks.
func fill(image, derived *imagev1.Image) {
	sent := Metadata(image)
	if derived.DockerImageManifestMediaType == derive.MediaTypeSchema1 && len(image.DockerImageLayers) > 0 && sent.Size > 0 {
		image.DockerImageManifestMediaType = derived.DockerImageManifestMediaType
		return
	}
	noConfig := image.DockerImageConfig == "" && !derive.IsIndex(derived.DockerImageManifestMediaType) &&
		derived.DockerImageManifestMediaType != derive.MediaTypeSchema1
	if !noConfig || sent.ID == "" {
		image.DockerImageMetadata = derived.DockerImageMetadata
		image.DockerImageMetadataVersion = derived.DockerImageMetadataVersion
	}
	takeContent(image, derived)
}

// takeContent takes over the derived fields about content, except the metadata and the texts
// of manifest and config with their places: a client's Image and the registry's differ in
// them.
func takeContent(image, derived *imagev1.Image) {
	image.DockerImageManifestMediaType = derived.DockerImageManifestMediaType
	image.DockerImageLayers = derived.DockerImageLayers
	image.DockerImageManifests = derived.DockerImageManifests
	if image.Annotations == nil {
		image.Annotations = map[string]string{}
	}
	for key, value := range derived.Annotations {
		if key != derive.AnnotationBlobStored {
			image.Annotations[key] = value
		}
	}
}

// protectContent keeps a client from changing the description of derived content. OpenShift
// allows it.
func protectContent(image, before *imagev1.Image) {
	if before.Annotations[AnnotationOrigin] != originRegistry && before.DockerImageManifest == "" {
		return
	}
	image.DockerImageManifestMediaType = before.DockerImageManifestMediaType
	image.DockerImageManifests = before.DockerImageManifests
}

// restoreManifest lets a client clear manifest and config, and set them to content with the
// digests in the image's name and in the manifest; nothing else.
func restoreManifest(image, before *imagev1.Image) {
	config := image.DockerImageConfig
	image.DockerImageConfig = "" // the manifest is judged by itself
	if isSet(image.DockerImageManifest, before.DockerImageManifest) && !isNamedBy(image) {
		image.DockerImageManifest = before.DockerImageManifest
	}
	image.DockerImageConfig = config
	if isSet(config, before.DockerImageConfig) && !hasConfigOfManifest(image) {
		image.DockerImageConfig = before.DockerImageConfig
	}
	if !isSet(image.DockerImageManifest, before.DockerImageManifest) && !isSet(image.DockerImageConfig, before.DockerImageConfig) {
		return
	}
	if derived, err := deriveFrom(image); err == nil {
		fill(image, derived)
	}
}

// isSet reports that a client has set a text to something new.
func isSet(text, before string) bool { return text != "" && text != before }

// isNamedBy reports whether the image's name is the digest of its manifest.
func isNamedBy(image *imagev1.Image) bool {
	return digest.Digest(image.Name).Validate() == nil && manifestError(image) == nil
}

// hasConfigOfManifest reports whether the image's config is the one that its
// manifest names, whose digest is then the Id of the image.
func hasConfigOfManifest(image *imagev1.Image) bool {
	derived, err := deriveFrom(image)
	return err == nil && Metadata(derived).ID == digest.FromString(image.DockerImageConfig).String()
}

func removeOwnAnnotations(image *imagev1.Image) {
	for key := range image.Annotations {
		if strings.HasPrefix(key, AnnotationPrefix) {
			delete(image.Annotations, key)
		}
	}
}

func restoreOwnAnnotations(image, before *imagev1.Image) {
	removeOwnAnnotations(image)
	for key, value := range before.Annotations {
		if strings.HasPrefix(key, AnnotationPrefix) {
			if image.Annotations == nil {
				image.Annotations = map[string]string{}
			}
			image.Annotations[key] = value
		}
	}
}

// Validate implements rest.RESTCreateStrategy.
func (imageStrategy) Validate(_ context.Context, obj runtime.Object) field.ErrorList {
	return validateImage(obj.(*imagev1.Image), nil)
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (imageStrategy) ValidateUpdate(_ context.Context, obj, old runtime.Object) field.ErrorList {
	return validateImageUpdate(obj.(*imagev1.Image), old.(*imagev1.Image))
}
