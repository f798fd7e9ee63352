package imageapi

import (
	"context"
	"fmt"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/storage"
)

// termGroup is the group of the terms that are made of the Image itself.
const termGroup = "image"

// imageIndex says by which terms Images are found. Its version changes with imageTerms.
var imageIndex = storage.Index{
	Version: "1", Group: termGroup, Terms: imageTerms, FieldTerm: fieldTerm, LabelTerm: labelTerm,
}

func labelTerm(label, value string) string { return "label:" + label + "=" + value }

// termFields are the fields with one value that have terms. The others are matched by
// the Image's attributes.
var termFields = map[string]bool{
	fieldArtifactType: true, fieldPlatform: true, fieldSubject: true, fieldSigned: true, fieldTrusted: true,
}

// imageTerms returns the terms of an Image: one for each value of a field that has
// terms, and one for each label.
func imageTerms(obj runtime.Object) []string {
	image, ok := obj.(*imagev1.Image)
	if !ok {
		return nil
	}
	labels, fields, err := imageAttributes(image)
	if err != nil {
		return nil
	}
	terms := make([]string, 0, len(labels)+len(fields))
	for field, value := range fields {
		if term, ok := fieldTerm(field, value); ok {
			terms = append(terms, term)
		}
	}
	for label, value := range labels {
		terms = append(terms, labelTerm(label, value))
	}
	return terms
}

// fieldTerm returns the term of field=value. The values "" and "false" have none: few
// would ask for them, and most Images would carry them.
func fieldTerm(field, value string) (term string, ok bool) {
	if name, one, many := strings.Cut(field, "\x00"); many {
		return name + "=" + one, value == "true"
	}
	return field + "=" + value, termFields[field] && value != "" && value != "false"
}

// StoredTerms returns the terms that the store is to have for a value under key, which
// came from another store.
// It fails if the value is no Image.
func StoredTerms(key string, value []byte) ([]storage.TermChange, error) {
	if !strings.HasPrefix(key, KeyPrefix) {
		return nil, nil
	}
	image := &imagev1.Image{}
	if err := runtime.DecodeInto(Codecs.LegacyCodec(imagev1.GroupVersion), value, image); err != nil {
		return nil, fmt.Errorf("decode %s: %w", key, err)
	}
	return []storage.TermChange{{Group: termGroup, Terms: imageTerms(image)}}, nil
}

// RebuildIndex fills the index of Images in a store anew, and returns when it is
// complete.
func RebuildIndex(ctx context.Context, backend storage.Backend) error {
	images, err := newImages(backend, SignatureOptions{})
	if err != nil {
		return err
	}
	defer images.encoded.Close()
	return images.encoded.RebuildIndex(ctx)
}
