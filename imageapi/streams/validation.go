package streams

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/distribution/reference"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxName bounds namespace and name of a stream, with the slash between them: the name of its repository.
const maxName = 255

// streamName is the form of a stream's name: that of a repository's, with ".." for a slash.
var streamName = regexp.MustCompile(`^[a-z0-9]+(?:(?:[._]|__|-+|\.\.)[a-z0-9]+)*$`)

// ValidateName validates the name of a stream. It is that of one repository.
func ValidateName(names Names, namespace, name string) field.ErrorList {
	path := field.NewPath("metadata", "name")
	switch {
	case name == "":
		return field.ErrorList{field.Required(path, "name or generateName is required")}
	case len(namespace)+1+len(name) > maxName:
		return field.ErrorList{field.Invalid(path, name, "'namespace/name' cannot be longer than 255 characters")}
	}
	if problems := content.IsPathSegmentName(name); len(problems) > 0 {
		return field.ErrorList{field.Invalid(path, name, problems[0])}
	}
	if !streamName.MatchString(name) {
		return field.ErrorList{field.Invalid(path, name, fmt.Sprintf("must match %q", streamName))}
	}
	if _, err := names.Repository(Stream{namespace, name}); err != nil {
		return field.ErrorList{field.Invalid(path, name, err.Error())}
	}
	return nil
}

// ValidateSpec validates the spec of a stream.
func ValidateSpec(spec *imagev1.ImageStreamSpec) (all field.ErrorList) {
	path := field.NewPath("spec")
	if repository := spec.DockerImageRepository; repository != "" {
		all = append(all, validateRepository(repository, path.Child("dockerImageRepository"))...)
	}
	for i := range spec.Tags {
		tag := &spec.Tags[i]
		at := path.Child("tags").Key(tag.Name)
		all = append(all, ValidateTagName(tag.Name, at.Child("name"))...)
		all = append(all, ValidateTag(tag, at)...)
	}
	return all
}

const tagRule = "must be a tag: up to 128 letters, digits, '_', '.' and '-', of which '.' and '-' are not the first"

// ValidateTagName validates the name of a tag: a registry may have one.
func ValidateTagName(name string, path *field.Path) field.ErrorList {
	if isTag(name) {
		return nil
	}
	return field.ErrorList{field.Invalid(path, name, tagRule)}
}

func validateRepository(repository string, path *field.Path) field.ErrorList {
	named, err := reference.ParseNormalizedNamed(repository)
	if err != nil {
		return field.ErrorList{field.Invalid(path, repository, err.Error())}
	}
	if _, ok := named.(reference.Tagged); ok {
		return field.ErrorList{field.Invalid(path, repository, "the repository name may not contain a tag")}
	}
	if _, ok := named.(reference.Digested); ok {
		return field.ErrorList{field.Invalid(path, repository, "the repository name may not contain an ID")}
	}
	return nil
}

// ValidateTag validates a spec tag.
func ValidateTag(tag *imagev1.TagReference, path *field.Path) (all field.ErrorList) {
	if tag.From != nil {
		all = append(all, validateFrom(tag, path)...)
	}
	switch tag.ImportPolicy.ImportMode {
	case "", imagev1.ImportModeLegacy, imagev1.ImportModePreserveOriginal:
	default:
		all = append(all, field.Invalid(path.Child("importPolicy", "importMode"), tag.ImportPolicy.ImportMode, "invalid import mode, valid modes are '', 'Legacy', 'PreserveOriginal'"))
	}
	switch tag.ReferencePolicy.Type {
	case imagev1.SourceTagReferencePolicy, imagev1.LocalTagReferencePolicy:
	default:
		all = append(all, field.Invalid(path.Child("referencePolicy", "type"), tag.ReferencePolicy.Type, `valid values are "Source", "Local"`))
	}
	return all
}

func validateFrom(tag *imagev1.TagReference, path *field.Path) (all field.ErrorList) {
	from := tag.From
	if from.Name == "" {
		all = append(all, field.Required(path.Child("from", "name"), ""))
	}
	switch from.Kind {
	case KindDockerImage:
		if _, err := reference.ParseNormalizedNamed(from.Name); err != nil && from.Name != "" {
			all = append(all, field.Invalid(path.Child("from", "name"), from.Name, err.Error()))
		}
		if from.Namespace != "" {
			all = append(all, field.Invalid(path.Child("from", "namespace"), from.Namespace, "a DockerImage is in no namespace"))
		}
	case KindImageStreamTag, KindImageStreamImage:
		if tag.ImportPolicy.Scheduled {
			all = append(all, field.Invalid(path.Child("importPolicy", "scheduled"), true, "only tags pointing to Docker repositories may be scheduled for background import"))
		}
	default:
		all = append(all, field.Required(path.Child("from", "kind"), "valid values are 'DockerImage', 'ImageStreamImage', 'ImageStreamTag'"))
	}
	return all
}

// ValidateStatusUpdate validates a status by a client: it has items and conditions of the former one alone.
func ValidateStatusUpdate(stream, before *imagev1.ImageStream) (all field.ErrorList) {
	path, seen := field.NewPath("status", "tags"), map[string]bool{}
	for i := range stream.Status.Tags {
		tag := &stream.Status.Tags[i]
		if seen[tag.Tag] {
			all = append(all, field.Duplicate(path.Key(tag.Tag), tag.Tag))
		}
		if seen[tag.Tag] = true; !HasItems(before, tag) {
			all = append(all, field.Forbidden(path.Key(tag.Tag), "a history may be shortened only: pushes and spec.tags add to it"))
		}
	}
	return all
}

// HasItems reports whether a stream has all items and conditions of a tag, in this order.
func HasItems(stream *imagev1.ImageStream, tag *imagev1.NamedTagEventList) bool {
	known := StatusTag(stream, tag.Tag)
	if known == nil {
		return len(tag.Items) == 0 && len(tag.Conditions) == 0
	}
	rest := known.Items
	for i := range tag.Items {
		at := slices.IndexFunc(rest, func(item imagev1.TagEvent) bool { return SameItem(&item, &tag.Items[i]) })
		if at < 0 {
			return false
		}
		rest = rest[at+1:]
	}
	for i := range tag.Conditions {
		if !slices.ContainsFunc(known.Conditions, func(c imagev1.TagEventCondition) bool { return equality.Semantic.DeepEqual(c, tag.Conditions[i]) }) {
			return false
		}
	}
	return true
}

// SameItem reports whether two items are of the same push.
func SameItem(a, b *imagev1.TagEvent) bool {
	return a.Image == b.Image && a.DockerImageReference == b.DockerImageReference && a.Created.Equal(&b.Created)
}
