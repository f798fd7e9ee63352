package streamwriter

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
)

// move is a change of a tag that the registry makes.
type move struct {
	edit records.TagEdit
	to   digest.Digest // "" to untag
	from streams.Stream
}

// changes returns the differences of two streams, of tags that go on pointing to the same manifest and of
// those that do not.
func changes(from, to *imagev1.ImageStream) (edits []records.TagEdit, moves []move) {
	was, is := tagsOf(from), tagsOf(to)
	all := maps.Clone(was)
	maps.Copy(all, is)
	for _, tag := range slices.Sorted(maps.Keys(all)) {
		before, after := was[tag], is[tag]
		edit := records.TagEdit{Tag: tag, Spec: after.spec}
		switch target := after.image(); {
		case target != before.image():
			moves = append(moves, move{edit, target, sourceOf(to, edit.Spec)})
		case !equality.Semantic.DeepEqual(before.status, after.status):
			edit.Status, edit.Before = after.status, before.status
			if edit.Status == nil {
				edit.Status = &imagev1.NamedTagEventList{Tag: tag}
			}
			edits = append(edits, edit)
		case !equality.Semantic.DeepEqual(before.spec, edit.Spec):
			edits = append(edits, edit)
		}
	}
	return edits, moves
}

// shownTag is a tag of a stream: its zero value is that of none.
type shownTag struct {
	spec   *imagev1.TagReference
	status *imagev1.NamedTagEventList
}

// tagsOf returns the tags of a stream by their names.
func tagsOf(stream *imagev1.ImageStream) map[string]shownTag {
	tags := make(map[string]shownTag, len(stream.Status.Tags))
	for i := range stream.Status.Tags {
		tags[stream.Status.Tags[i].Tag] = shownTag{status: &stream.Status.Tags[i]}
	}
	for i := range stream.Spec.Tags {
		tag := tags[stream.Spec.Tags[i].Name]
		tag.spec = &stream.Spec.Tags[i]
		tags[stream.Spec.Tags[i].Name] = tag
	}
	return tags
}

// image returns the manifest that a tag points to, "" for none.
func (t shownTag) image() digest.Digest {
	if t.status == nil || len(t.status.Items) == 0 {
		return ""
	}
	return digest.Digest(t.status.Items[0].Image)
}

// sourceOf returns the stream that has the content that a spec tag of a stream names: its own, unless the
// spec says otherwise.
func sourceOf(stream *imagev1.ImageStream, spec *imagev1.TagReference) streams.Stream {
	own := streams.Stream{Namespace: stream.Namespace, Name: stream.Name}
	if spec == nil {
		return own
	}
	if source, _, ok := streams.Source(own, spec.From); ok {
		return source
	}
	return own
}
