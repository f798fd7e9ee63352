package rules

import (
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"tallyman/signatures"
)

// SignedImage returns the image's part of <imageName>@<signatureName>.
func SignedImage(name string) (image string, ok bool) {
	image, signature, found := strings.Cut(name, "@")
	return image, found && image != "" && signature != "" && !strings.Contains(signature, "@")
}

// maxSignatureName is the largest length of a signature's name, in bytes.
const maxSignatureName = 512

// ValidateSignature checks an ImageSignature at a path of an object, nil for an
// object of its own.
func ValidateSignature(s *imagev1.ImageSignature, at *field.Path) field.ErrorList {
	meta := at.Child("metadata")
	errs := apivalidation.ValidateObjectMeta(&s.ObjectMeta, false, validatePathSegment, meta)
	if len(s.Labels) > 0 {
		errs = append(errs, field.Forbidden(meta.Child("labels"), "signature labels cannot be set"))
	}
	if _, own := s.Annotations[AnnotationRepositories]; len(s.Annotations) > 1 || len(s.Annotations) == 1 && (!own || at == nil) {
		errs = append(errs, field.Forbidden(meta.Child("annotations"), "signature annotations cannot be set"))
	}
	if _, ok := SignedImage(s.Name); !ok {
		errs = append(errs, field.Invalid(meta.Child("name"), s.Name, "name must be of format <imageName>@<signatureName>"))
	}
	if len(s.Name) > maxSignatureName {
		errs = append(errs, field.TooLong(meta.Child("name"), s.Name, maxSignatureName))
	}
	if s.Type == "" {
		errs = append(errs, field.Required(at.Child("type"), ""))
	}
	if len(s.Content) == 0 {
		errs = append(errs, field.Required(at.Child("content"), ""))
	}
	return append(errs, validateSignatureState(s, at)...)
}

// validateSignatureState checks that Trusted and ForImage come together, and that results of a
// verification are there only with both.
func validateSignatureState(s *imagev1.ImageSignature, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	trusted, forImage := newestCondition(s, signatures.ConditionTrusted), newestCondition(s, signatures.ConditionForImage)
	switch {
	case trusted != nil && forImage == nil:
		errs = append(errs, field.Invalid(at.Child("conditions"), s.Conditions, `missing "ForImage" condition type`))
	case trusted == nil && forImage != nil:
		errs = append(errs, field.Invalid(at.Child("conditions"), s.Conditions, `missing "Trusted" condition type`))
	}
	if trusted != nil && trusted.Status != corev1.ConditionUnknown {
		return errs
	}
	unset := func(name string, value any, isSet bool) {
		if isSet {
			errs = append(errs, field.Invalid(at.Child(name), value, "must be unset for unknown signature state"))
		}
	}
	unset("imageIdentity", s.ImageIdentity, s.ImageIdentity != "")
	unset("signedClaims", s.SignedClaims, len(s.SignedClaims) > 0)
	unset("issuedBy", s.IssuedBy, s.IssuedBy != nil)
	unset("issuedTo", s.IssuedTo, s.IssuedTo != nil)
	return errs
}

// newestCondition returns the condition of the type that was probed last, of
// several at one time the last; nil if there is none.
func newestCondition(s *imagev1.ImageSignature, conditionType imagev1.SignatureConditionType) *imagev1.SignatureCondition {
	var newest *imagev1.SignatureCondition
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if c.Type == conditionType && (newest == nil || !c.LastProbeTime.Before(&newest.LastProbeTime)) {
			newest = c
		}
	}
	return newest
}
