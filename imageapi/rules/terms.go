package rules

import (
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// LabelTerm returns the term of a label.
func LabelTerm(label, value string) string { return "label:" + label + "=" + value }

// termFields are the fields with one value that have terms. The others are matched by
// the Image's attributes.
var termFields = map[string]bool{
	fieldArtifactType: true, fieldPlatform: true, fieldSubject: true, fieldSigned: true, fieldTrusted: true,
	fieldVerification: true,
}

// Terms by which the server itself finds Images.
const (
	// TermPending is the term of Images with signatures that are not verified yet.
	TermPending = fieldVerification + "=" + VerificationPending
	// TermSignatures is the term of Images with signatures of any kind.
	TermSignatures = "signatures"
)

// Terms returns the terms of an Image: one for each value of a field that has
// terms, and one for each label.
func Terms(obj runtime.Object) []string {
	image, ok := obj.(*imagev1.Image)
	if !ok {
		return nil
	}
	labels, fields, err := Attributes(image)
	if err != nil {
		return nil
	}
	terms := make([]string, 0, len(labels)+len(fields))
	for field, value := range fields {
		if term, ok := FieldTerm(field, value); ok {
			terms = append(terms, term)
		}
	}
	if len(image.Signatures) > 0 {
		terms = append(terms, TermSignatures)
	}
	for label, value := range labels {
		terms = append(terms, LabelTerm(label, value))
	}
	return terms
}

// FieldTerm returns the term of field=value. The values "", "false" and "complete" have none: few
// would ask for them, and most Images would carry them.
func FieldTerm(field, value string) (term string, ok bool) {
	if name, one, many := strings.Cut(field, "\x00"); many {
		return name + "=" + one, value == "true"
	}
	return field + "=" + value, termFields[field] && value != "" && value != "false" && value != VerificationComplete
}
