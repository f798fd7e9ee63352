package streams

import (
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"
)

// Normalize sorts the tags of a spec by name, keeps the last of those with one name, and sets defaults, as
// OpenShift does.
func Normalize(spec *imagev1.ImageStreamSpec) {
	last := map[string]int{}
	for i := range spec.Tags {
		last[spec.Tags[i].Name] = i
	}
	kept := make([]imagev1.TagReference, 0, len(last))
	for i := range spec.Tags {
		if last[spec.Tags[i].Name] == i {
			SetDefaults(&spec.Tags[i])
			kept = append(kept, spec.Tags[i])
		}
	}
	slices.SortFunc(kept, func(a, b imagev1.TagReference) int { return strings.Compare(a.Name, b.Name) })
	spec.Tags = kept
	if len(kept) == 0 {
		spec.Tags = nil
	}
}

// SetDefaults sets the defaults of a spec tag.
func SetDefaults(tag *imagev1.TagReference) {
	if tag.ReferencePolicy.Type == "" {
		tag.ReferencePolicy.Type = imagev1.SourceTagReferencePolicy
	}
	if tag.ImportPolicy.ImportMode == "" {
		tag.ImportPolicy.ImportMode = imagev1.ImportModeLegacy
	}
}

// SpecTag returns the spec of a tag of a stream, nil if there is none.
func SpecTag(stream *imagev1.ImageStream, tag string) *imagev1.TagReference {
	for i := range stream.Spec.Tags {
		if stream.Spec.Tags[i].Name == tag {
			return &stream.Spec.Tags[i]
		}
	}
	return nil
}

// StatusTag returns the history of a tag of a stream, nil if there is none.
func StatusTag(stream *imagev1.ImageStream, tag string) *imagev1.NamedTagEventList {
	for i := range stream.Status.Tags {
		if stream.Status.Tags[i].Tag == tag {
			return &stream.Status.Tags[i]
		}
	}
	return nil
}

// Head returns the newest item of a tag's history, nil if there is none.
func Head(stream *imagev1.ImageStream, tag string) *imagev1.TagEvent {
	if status := StatusTag(stream, tag); status != nil && len(status.Items) > 0 {
		return &status.Items[0]
	}
	return nil
}

// Changed reports whether the spec of a tag of a stream in a namespace says something else of the tag's
// content than before, nil for none: it names another source, or asks for it again by the generation 0.
func Changed(namespace string, before, after *imagev1.TagReference) bool {
	from := after.From
	if from == nil || from.Kind == "" && from.Name == "" {
		return false
	}
	if before == nil || before.From == nil {
		return true
	}
	in := func(from *corev1.ObjectReference) string {
		if from.Namespace == "" {
			return namespace
		}
		return from.Namespace
	}
	again := ptr.Deref(before.Generation, 0) != 0 && after.Generation != nil && *after.Generation == 0
	return again || in(before.From) != in(from) || before.From.Kind != from.Kind || before.From.Name != from.Name ||
		before.Reference != after.Reference || before.ImportPolicy.ImportMode != after.ImportPolicy.ImportMode
}

// ImportPending reports whether a tag has a source in another registry that nobody has tried to import since it
// was set.
func ImportPending(tag *imagev1.ImageTag) bool {
	if !isImported(tag.Spec) {
		return false
	}
	wanted, tried := ptr.Deref(tag.Spec.Generation, 0), int64(-1)
	for _, item := range tag.Status.Items {
		tried = max(tried, item.Generation)
	}
	for i := range tag.Status.Conditions {
		tried = max(tried, tag.Status.Conditions[i].Generation)
	}
	return tried < wanted
}

// ImportScheduled reports whether a tag has a source in another registry that is to be imported again and again.
func ImportScheduled(tag *imagev1.ImageTag) bool {
	return isImported(tag.Spec) && tag.Spec.ImportPolicy.Scheduled
}

func isImported(spec *imagev1.TagReference) bool {
	return spec != nil && spec.From != nil && spec.From.Kind == KindDockerImage && !spec.Reference
}

// SetGenerations sets the generations of a stream that is changed by a client, and of its spec tags, as
// OpenShift does: each change of the spec is one more, and a spec tag has that of its last change. before
// is nil for a new stream. A client can ask for a spec tag's content again by the generation 0.
func SetGenerations(before, after *imagev1.ImageStream) {
	if before == nil {
		after.Generation = 1
		for i := range after.Spec.Tags {
			after.Spec.Tags[i].Generation = ptr.To[int64](1)
		}
		return
	}
	changed := map[string]bool{}
	for i := range after.Spec.Tags {
		tag := &after.Spec.Tags[i]
		former := SpecTag(before, tag.Name)
		if former == nil {
			tag.Generation = nil
		} else if tag.Generation == nil || *tag.Generation != 0 {
			tag.Generation = former.Generation
		}
		changed[tag.Name] = former == nil || Changed(after.Namespace, former, tag)
	}
	if after.Generation = before.Generation; after.Generation == 0 || !equality.Semantic.DeepEqual(before.Spec, after.Spec) {
		after.Generation = nextGeneration(before)
	}
	for i := range after.Spec.Tags {
		if tag := &after.Spec.Tags[i]; changed[tag.Name] || ptr.Deref(tag.Generation, 0) == 0 {
			tag.Generation = ptr.To(after.Generation)
		}
	}
}

// nextGeneration returns one that is greater than that of the stream, and of each push of one of its tags.
func nextGeneration(stream *imagev1.ImageStream) int64 {
	greatest := stream.Generation
	for i := range stream.Status.Tags {
		if items := stream.Status.Tags[i].Items; len(items) > 0 {
			greatest = max(greatest, items[0].Generation)
		}
	}
	return greatest + 1
}

// Source returns the stream that a reference from a stream names, and the tag or the image in it. ok is
// false if it names neither, or in another form than <tag>, <stream>:<tag>, <id> or <stream>@<id>.
func Source(own Stream, from *corev1.ObjectReference) (stream Stream, name string, ok bool) {
	if from == nil {
		return Stream{}, "", false
	}
	separator := map[string]string{KindImageStreamTag: ":", KindImageStreamImage: "@"}[from.Kind]
	if separator == "" {
		return Stream{}, "", false
	}
	stream = own
	if from.Namespace != "" {
		stream.Namespace = from.Namespace
	}
	before, after, whole := strings.Cut(from.Name, separator)
	if !whole {
		return stream, before, before != ""
	}
	stream.Name = before
	return stream, after, before != "" && after != "" && !strings.Contains(after, separator)
}
