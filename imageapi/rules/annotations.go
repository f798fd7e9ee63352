package rules

import (
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/derive"
)

// Annotations about the repositories and tags of an Image. Like all with AnnotationPrefix they
// belong to the server: changes by clients are reverted.
const (
	// AnnotationPrefix starts the annotations that only the server writes.
	AnnotationPrefix = derive.AnnotationPrefix
	// AnnotationRepositories lists the repositories that hold the manifest:
	// comma-separated, sorted, such as "team/app,team/base".
	AnnotationRepositories = AnnotationPrefix + "repositories"
	// AnnotationTags lists the tags that point to the manifest, each with its
	// repository: comma-separated, sorted, such as "team/app:v1".
	AnnotationTags = AnnotationPrefix + "tags"
	// AnnotationTruncated is "true" if the server's annotations do not hold all that they are to
	// say, such as tags and repositories (Kubernetes allows 256 KiB for all annotations).
	AnnotationTruncated = AnnotationPrefix + "truncated"
	// AnnotationTagCount is the number of tags of an image stream that is truncated.
	AnnotationTagCount = AnnotationPrefix + "tag-count"
	// AnnotationOrigin is "registry" on an Image that exists because a
	// manifest was pushed; such an Image goes with the last repository.
	AnnotationOrigin = AnnotationPrefix + "origin"

	OriginRegistry = "registry"

	// AnnotationTrusted lists the repositories whose signature policy the image
	// satisfies: comma-separated, sorted.
	AnnotationTrusted = AnnotationPrefix + "trusted"
	// AnnotationVerification says whether the signatures are verified: VerificationComplete or
	// VerificationPending. Every Image that the server has written has it.
	AnnotationVerification = AnnotationPrefix + "verification"
	VerificationComplete   = "complete"
	VerificationPending    = "pending"
	// AnnotationPolicies is the digest of the signature policies that apply to the image, by which
	// its signatures were verified. An Image without signatures, or that no policy covers, has none.
	AnnotationPolicies = AnnotationPrefix + "policies"
	// AnnotationSignaturesOmitted is how many signatures the registry holds that
	// are not among the Image's, as there are too many.
	AnnotationSignaturesOmitted = AnnotationPrefix + "signatures-omitted"

	// AnnotationManaged is OpenShift's mark of an Image whose content is in
	// this registry.
	AnnotationManaged = imagev1.ManagedByOpenShiftAnnotation

	// maxPlacement bounds each of the two lists, in bytes; maxTrusted that of AnnotationTrusted,
	// maxText any other annotation of the server, and maxVerification those that a verification
	// writes besides, with their names.
	maxPlacement, maxTrusted, maxText, maxVerification = 96 << 10, 16 << 10, 1 << 10, 256

	// MaxUserAnnotations is the size of the annotations of users, with their names, in bytes. It
	// leaves room for all of the server's.
	MaxUserAnnotations = 44 << 10
)

// Repositories returns the repositories that hold the image's manifest.
func Repositories(image *imagev1.Image) []string {
	return split(image.Annotations[AnnotationRepositories])
}

// Tags returns the tags that point to the image's manifest, as repository:tag.
func Tags(image *imagev1.Image) []string {
	return split(image.Annotations[AnnotationTags])
}

// TrustedRepositories returns the repositories whose signature policy the image satisfies.
func TrustedRepositories(image *imagev1.Image) []string {
	return split(image.Annotations[AnnotationTrusted])
}

// split is the inverse of joining with commas, which neither repository names
// nor tags contain.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// SetText sets the annotation key; an empty value removes it.
func SetText(image *imagev1.Image, key, value string) {
	if value == "" {
		delete(image.Annotations, key)
		return
	}
	if image.Annotations == nil {
		image.Annotations = map[string]string{}
	}
	image.Annotations[key] = value
}

// SetList makes the annotation key a comma-separated list; an empty list removes it.
func SetList(image *imagev1.Image, key string, list []string) {
	SetText(image, key, strings.Join(list, ","))
}

// addToList inserts element into the sorted list under key.
func addToList(image *imagev1.Image, key, element string) {
	list := split(image.Annotations[key])
	at, found := slices.BinarySearch(list, element)
	if found {
		return
	}
	if len(image.Annotations[key])+len(element) >= maxPlacement {
		image.Annotations[AnnotationTruncated] = "true"
		return
	}
	SetList(image, key, slices.Insert(list, at, element))
}

func removeFromList(image *imagev1.Image, key string, remove func(string) bool) {
	SetList(image, key, slices.DeleteFunc(split(image.Annotations[key]), remove))
}

// AddRepository notes that repository holds the manifest.
func AddRepository(image *imagev1.Image, repository string) {
	addToList(image, AnnotationRepositories, repository)
}

// RemoveRepository notes that repository, and with it its tags and signatures, is no more.
func RemoveRepository(image *imagev1.Image, repository string) {
	removeSignatures(image, repository)
	removeFromList(image, AnnotationRepositories, func(r string) bool { return r == repository })
	removeFromList(image, AnnotationTags, func(tag string) bool { return strings.HasPrefix(tag, repository+":") })
}

// SetTag notes that a tag of repository points to the manifest, or does not.
func SetTag(image *imagev1.Image, repository, tag string, points bool) {
	full := repository + ":" + tag
	if points {
		addToList(image, AnnotationTags, full)
		return
	}
	removeFromList(image, AnnotationTags, func(t string) bool { return t == full })
}
