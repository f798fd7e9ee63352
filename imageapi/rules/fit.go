package rules

import (
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// FitAnnotations cuts the server's annotations to their bounds, and the lists further if users
// have annotations from before those had a bound. It marks an Image of which it has cut something. A
// push is never refused because of its annotations.
func FitAnnotations(image *imagev1.Image) {
	for key, value := range image.Annotations {
		if isText(key) && len(value) > maxText {
			image.Annotations[key] = strings.ToValidUTF8(value[:maxText], "")
			image.Annotations[AnnotationTruncated] = "true"
		}
	}
	for _, key := range []string{AnnotationTags, AnnotationRepositories} {
		cutList(image, key, max(0, roomFor(image, key)-maxTrusted-len(AnnotationTrusted)-maxVerification))
	}
}

// roomFor returns how many bytes the value of an annotation may have beside all others.
func roomFor(image *imagev1.Image, name string) int {
	left := apivalidation.TotalAnnotationSizeLimitB - len(name) - len(AnnotationTruncated) - len("true")
	for key, value := range image.Annotations {
		if key != name && key != AnnotationTruncated && (key != AnnotationTrusted || name == AnnotationTrusted) {
			left -= len(key) + len(value)
		}
	}
	return left
}

// isText reports whether the server's annotation called key is a text, not a list.
func isText(key string) bool {
	return strings.HasPrefix(key, AnnotationPrefix) && !slices.Contains([]string{AnnotationTags, AnnotationRepositories, AnnotationTrusted}, key)
}

// cutList leaves the first elements of a list that have at most most bytes.
func cutList(image *imagev1.Image, key string, most int) {
	list := image.Annotations[key]
	if len(list) <= most {
		return
	}
	cut := strings.LastIndexByte(list[:most+1], ',') // one that follows most is the end of an element
	if cut <= 0 {
		delete(image.Annotations, key)
	} else {
		image.Annotations[key] = list[:cut]
	}
	image.Annotations[AnnotationTruncated] = "true"
}

// SetTrusted notes the repositories whose signature policy is satisfied, as many as fit.
func SetTrusted(image *imagev1.Image, repositories []string) {
	SetList(image, AnnotationTrusted, repositories)
	cutList(image, AnnotationTrusted, min(maxTrusted, max(0, roomFor(image, AnnotationTrusted))))
}

// userAnnotations returns the size of the annotations that are not the server's.
func userAnnotations(image *imagev1.Image) int {
	size := 0
	for key, value := range image.Annotations {
		if !strings.HasPrefix(key, AnnotationPrefix) {
			size += len(key) + len(value)
		}
	}
	return size
}

// validateUserAnnotations refuses annotations of a client that leave no room for the server's.
// Those that are larger already may stay, and shrink.
func validateUserAnnotations(image, before *imagev1.Image) field.ErrorList {
	most := MaxUserAnnotations
	if before != nil {
		most = max(most, userAnnotations(before))
	}
	if userAnnotations(image) > most {
		return field.ErrorList{field.TooLong(field.NewPath("metadata", "annotations"), "" /* the value is not shown */, MaxUserAnnotations)}
	}
	return nil
}
