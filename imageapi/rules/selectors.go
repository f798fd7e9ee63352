package rules

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"tallyman/imageapi/derive"
	"tallyman/signatures"
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
	// fieldSigned is "true" on an Image with a signature of its own, fieldTrusted on
	// one with a signature that is trusted.
	fieldSigned  = "signed"
	fieldTrusted = "trusted"
	// fieldTrustedIn selects by a repository whose policy the Image satisfies, fieldSigner by
	// the name or the key ID of the signer of a trusted signature.
	fieldTrustedIn = "trustedRepository"
	fieldSigner    = "signer"
	// fieldVerification selects Images whose signatures are all verified, or are not.
	fieldVerification = "verification"
	// fieldLayer selects by the digest of a layer.
	fieldLayer = "layer"
)

// manyFields are the fields of which an Image may have several values.
var manyFields = map[string]bool{fieldRepository: true, fieldTag: true, fieldTrustedIn: true, fieldSigner: true, fieldLayer: true}

var selectableFields = map[string]bool{
	"metadata.name": true, "metadata.namespace": true, fieldRepository: true, fieldTag: true, fieldReference: true,
	fieldMediaType: true, fieldArtifactType: true, fieldSubject: true, fieldPlatform: true, fieldSigned: true, fieldTrusted: true,
	fieldTrustedIn: true, fieldSigner: true, fieldLayer: true, fieldVerification: true,
}

// ConvertFieldLabel checks a field selector's term. An Image may have many repositories, while
// a field has one value: `repository=team/app` is turned into a field of its own that is
// either "true" or absent, so that =, != and several terms together have their usual meaning.
func ConvertFieldLabel(label, value string) (string, string, error) {
	switch {
	case manyFields[label]:
		return manyField(label, value), "true", nil
	case selectableFields[label]:
		return label, value, nil
	}
	if prefix, _, ok := strings.Cut(label, "\x00"); ok && manyFields[prefix] {
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

// Attributes returns the attributes that selectors of Images match.
func Attributes(obj runtime.Object) (labels.Set, fields.Set, error) {
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
		fieldVerification: image.Annotations[AnnotationVerification],
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
	for i := range image.DockerImageLayers {
		set[manyField(fieldLayer, image.DockerImageLayers[i].Name)] = "true"
	}
	signatureAttributes(image, set)
	return image.Labels, set, nil
}

// Match returns the predicate of two selectors.
func Match(label labels.Selector, field fields.Selector) storage.SelectionPredicate {
	return storage.SelectionPredicate{Label: label, Field: field, GetAttrs: Attributes}
}

func signatureAttributes(image *imagev1.Image, set fields.Set) {
	signed, trusted := countSignatures(image)
	set[fieldSigned], set[fieldTrusted] = strconv.FormatBool(signed > 0), strconv.FormatBool(trusted > 0)
	for _, repository := range TrustedRepositories(image) {
		set[manyField(fieldTrustedIn, repository)] = "true"
	}
	for i := range image.Signatures {
		s := &image.Signatures[i]
		if !signatures.IsTrusted(s) || s.IssuedTo == nil {
			continue
		}
		for _, name := range []string{s.IssuedTo.CommonName, s.IssuedTo.PublicKeyID} {
			if name != "" {
				set[manyField(fieldSigner, name)] = "true"
			}
		}
	}
}

// countSignatures counts the signatures that are of this image, and those of them
// that are trusted.
func countSignatures(image *imagev1.Image) (signed, trusted int) {
	for i := range image.Signatures {
		if signatures.IsOfImage(&image.Signatures[i]) {
			signed++
		}
		if signatures.IsTrusted(&image.Signatures[i]) {
			trusted++
		}
	}
	return signed, trusted
}
