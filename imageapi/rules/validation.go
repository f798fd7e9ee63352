package rules

import (
	"errors"
	"mime"
	"regexp"
	"slices"
	"strings"

	"github.com/distribution/reference"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"tallyman/imageapi/derive"
)

// Validation follows OpenShift's pkg/image/apis/image/validation, with its field
// paths and words, since clients match on them.

// digestPattern is the OCI grammar of a digest. OpenShift's is the same but not
// anchored.
var digestPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[[:xdigit:]]{32,}$`)

// Validate checks image; before is the stored one, nil on create. Stored values that have
// not changed never prevent an update. content is the image's content; nil means that the
// registry has derived the image, which is then not derived again.
func Validate(image, before *imagev1.Image, content *Content) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&image.ObjectMeta, false, validatePathSegment, field.NewPath("metadata"))
	errs = append(errs, validateFinalizers(image, before)...)
	if before == nil || image.DockerImageReference != before.DockerImageReference {
		errs = append(errs, validateReference(image)...)
	}
	errs = append(errs, validateMetadata(image)...)
	if content != nil {
		errs = append(errs, validateBounds(image, before)...)
		errs = append(errs, validateUserAnnotations(image, before)...)
	}
	if before == nil && content != nil {
		errs = append(errs, validateManifest(image, content)...)
	}
	if before == nil || !equality.Semantic.DeepEqual(image.DockerImageManifests, before.DockerImageManifests) {
		// Entries of an index may lack a platform; only entries of a client, without a manifest here
		// or in a registry, must have one.
		derived := content == nil || content.text != "" || image.DockerImageManifest != "" || image.Annotations[AnnotationOrigin] == OriginRegistry ||
			image.Annotations[derive.AnnotationBlobStored] == "true"
		if !derived {
			errs = append(errs, validateManifests(image)...)
		}
	}
	if len(image.DockerImageManifests) > 0 && len(image.DockerImageLayers) > 0 {
		errs = append(errs, field.Invalid(field.NewPath("dockerImageLayers"), "",
			"dockerImageLayers should not be set when dockerImageManifests is set"))
	}
	for i := range image.Signatures {
		if before != nil && i < len(before.Signatures) && EqualSignatures(&image.Signatures[i], &before.Signatures[i]) {
			continue
		}
		errs = append(errs, ValidateSignature(&image.Signatures[i], field.NewPath("signatures").Index(i))...)
	}
	return errs
}

// standardFinalizers are the finalizers without a domain
// (https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/apis/core/helper/helpers.go).
var standardFinalizers = []string{"kubernetes", metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents}

// validateFinalizers refuses new finalizers without a domain, as for core types: a mistyped one
// would keep the image from being deleted.
func validateFinalizers(image, before *imagev1.Image) field.ErrorList {
	var errs field.ErrorList
	for i, name := range image.Finalizers {
		stored := before != nil && slices.Contains(before.Finalizers, name)
		if !stored && !strings.Contains(name, "/") && !slices.Contains(standardFinalizers, name) {
			errs = append(errs, field.Invalid(field.NewPath("metadata", "finalizers").Index(i), name,
				"name is neither a standard finalizer name nor is it fully qualified"))
		}
	}
	return errs
}

// validatePathSegment is the rule for names of this group: anything that can be a
// part of a URL's path, such as a digest.
func validatePathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// ValidateUpdate is Validate with the rules for changes of metadata.
func ValidateUpdate(image, before *imagev1.Image, content *Content) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaUpdate(&image.ObjectMeta, &before.ObjectMeta, field.NewPath("metadata"))
	return append(errs, Validate(image, before, content)...)
}

func validateReference(image *imagev1.Image) field.ErrorList {
	at := field.NewPath("dockerImageReference")
	if image.DockerImageReference == "" {
		return field.ErrorList{field.Required(at, "")}
	}
	if _, err := reference.ParseNormalizedNamed(image.DockerImageReference); err != nil {
		return field.ErrorList{field.Invalid(at, image.DockerImageReference, err.Error())}
	}
	return nil
}

func validateMetadata(image *imagev1.Image) field.ErrorList {
	scratch := *image // NormalizeMetadata replaces fields, and changes nothing they point to
	err := NormalizeMetadata(&scratch)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errMetadataVersion):
		return field.ErrorList{field.NotSupported(field.NewPath("dockerImageMetadataVersion"), image.DockerImageMetadataVersion,
			[]string{metadataVersion10, metadataVersionPre})}
	}
	return field.ErrorList{field.Invalid(field.NewPath("dockerImageMetadata"), abbreviate(string(image.DockerImageMetadata.Raw)), err.Error())}
}

// validateManifest refuses a manifest that is none, or is not the one that the
// image's name is the digest of.
func validateManifest(image *imagev1.Image, content *Content) field.ErrorList {
	err := content.Check(image)
	if err == nil {
		return nil
	}
	at, value := "dockerImageManifest", image.DockerImageManifest
	if errors.Is(err, derive.ErrDigest) && strings.HasPrefix(err.Error(), "config") {
		at, value = "dockerImageConfig", image.DockerImageConfig
	}
	return field.ErrorList{field.Invalid(field.NewPath(at), abbreviate(value), err.Error())}
}

// abbreviate keeps large values out of error messages.
func abbreviate(value string) string {
	const most = 128
	if len(value) <= most {
		return value
	}
	return strings.ToValidUTF8(value[:most], "") + "…"
}

// validateManifests checks the entries that a client has written.
func validateManifests(image *imagev1.Image) field.ErrorList {
	var errs field.ErrorList
	for i := range image.DockerImageManifests {
		m, at := &image.DockerImageManifests[i], field.NewPath("dockerImageManifests").Index(i)
		if !digestPattern.MatchString(m.Digest) {
			errs = append(errs, field.Invalid(at.Child("digest"), m.Digest, "digest does not conform with OCI image specification"))
		}
		if !isMediaType(m.MediaType) {
			errs = append(errs, field.Invalid(at.Child("mediaType"), m.MediaType, "media type does not conform to RFC6838"))
		}
		if m.Architecture == "" {
			errs = append(errs, field.Required(at.Child("architecture"), ""))
		}
		if m.OS == "" {
			errs = append(errs, field.Required(at.Child("os"), ""))
		}
		if m.ManifestSize < 0 {
			errs = append(errs, field.Invalid(at.Child("size"), m.ManifestSize, "manifest size cannot be negative"))
		}
	}
	return errs
}

func isMediaType(s string) bool {
	base, _, err := mime.ParseMediaType(s)
	return err == nil && strings.Count(base, "/") == 1
}
