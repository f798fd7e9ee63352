package imageapi

import (
	"fmt"
	"sort"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"tallyman/imageapi/derive"
)

// Fields that select Images besides metadata.name.
const (
	fieldRepository   = "repository"
	fieldTag          = "tag"
	fieldReference    = "dockerImageReference"
	fieldMediaType    = "dockerImageManifestMediaType"
	fieldArtifactType = "artifactType"
	fieldSubject      = "subject"
	fieldPlatform     = "platform"
)

var selectableFields = map[string]bool{
	"metadata.name": true, "metadata.namespace": true, fieldRepository: true, fieldTag: true, fieldReference: true,
	fieldMediaType: true, fieldArtifactType: true, fieldSubject: true, fieldPlatform: true,
}

// convertFieldLabel checks a field selector's term. An Image has any number of
// repositories and tags while a field has one value: `repository=team/app` is
// turned into a field of its own that is either "true" or absent, so that =, !=
// and several terms together mean what they say.
func convertFieldLabel(label, value string) (string, string, error) {
	switch {
	case label == fieldRepository, label == fieldTag:
		return manyField(label, value), "true", nil
	case selectableFields[label]:
		return label, value, nil
	}
	if prefix, _, ok := strings.Cut(label, "\x00"); ok && (prefix == fieldRepository || prefix == fieldTag) {
		return label, value, nil // converted already
	}
	known := make([]string, 0, len(selectableFields))
	for field := range selectableFields {
		known = append(known, fmt.Sprintf("%q", field))
	}
	sort.Strings(known)
	return "", "", fmt.Errorf("%q is not a known field selector: only %s", label, strings.Join(known, ", "))
}

func manyField(field, value string) string { return field + "\x00" + value }

// imageAttributes returns what selectors of Images look at.
func imageAttributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	image, ok := obj.(*imagev1.Image)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not an Image", obj)
	}
	set := fields.Set{
		"metadata.name":   image.Name,
		fieldReference:    image.DockerImageReference,
		fieldMediaType:    image.DockerImageManifestMediaType,
		fieldArtifactType: image.Annotations[derive.AnnotationArtifactType],
		fieldSubject:      image.Annotations[derive.AnnotationSubject],
		fieldPlatform:     image.Annotations[derive.AnnotationPlatform],
	}
	for _, repository := range Repositories(image) {
		set[manyField(fieldRepository, repository)] = "true"
	}
	for _, full := range Tags(image) {
		set[manyField(fieldTag, full)] = "true"
		if at := strings.LastIndexByte(full, ':'); at >= 0 {
			set[manyField(fieldTag, full[at+1:])] = "true"
		}
	}
	return image.Labels, set, nil
}

func matchImage(label labels.Selector, field fields.Selector) storage.SelectionPredicate {
	return storage.SelectionPredicate{Label: label, Field: field, GetAttrs: imageAttributes}
}
