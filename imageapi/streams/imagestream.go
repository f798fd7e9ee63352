package streams

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/rules"
)

// maxTagBytes bounds the tags that an ImageStream shows, in about the bytes of their JSON.
const maxTagBytes = 1 << 20

// Tags collects the tags of one stream for its status: as many as fit, the ones that were pushed last.
// Its zero value has none.
type Tags struct {
	lists []imagev1.NamedTagEventList
	size  int
	cut   bool
}

// Add adds the status of a tag.
func (t *Tags) Add(tag *imagev1.NamedTagEventList) {
	t.lists, t.size = append(t.lists, *tag), t.size+sizeOf(tag)
	if t.size > 2*maxTagBytes { // not with each
		t.trim()
	}
}

// sizeOf returns about the size of a tag in JSON.
func sizeOf(tag *imagev1.NamedTagEventList) int {
	size := 40 + len(tag.Tag)
	for i := range tag.Items {
		size += 100 + len(tag.Items[i].DockerImageReference) + len(tag.Items[i].Image)
	}
	for i := range tag.Conditions {
		size += 150 + len(tag.Conditions[i].Reason) + len(tag.Conditions[i].Message)
	}
	return size
}

// trim leaves out history, and then the tags that were pushed first, until the rest fits.
func (t *Tags) trim() {
	if t.size <= maxTagBytes {
		return
	}
	t.cut, t.size = true, 0
	slices.SortStableFunc(t.lists, newestFirst)
	kept := 0
	for ; kept < len(t.lists); kept++ {
		tag := &t.lists[kept]
		if len(tag.Items) > 1 {
			tag.Items = tag.Items[:1:1]
		}
		if t.size += sizeOf(tag); t.size > maxTagBytes && kept > 0 {
			t.size -= sizeOf(tag)
			break
		}
	}
	t.lists = t.lists[:kept]
}

func newestFirst(a, b imagev1.NamedTagEventList) int {
	if c := pushed(&b).Compare(pushed(&a)); c != 0 {
		return c
	}
	return strings.Compare(a.Tag, b.Tag)
}

// ImageStream returns an ImageStream with its tags, sorted by name, as OpenShift shows it. stored is the
// stream as it is stored, without them. host is the registry's own host[:port] for pull references, ""
// for none. If there are more tags than an ImageStream shows, it has the annotation
// rules.AnnotationTruncated.
func ImageStream(stored *imagev1.ImageStream, tags *Tags, host, repository string) *imagev1.ImageStream {
	shown := *stored
	tags.trim()
	slices.SortFunc(tags.lists, func(a, b imagev1.NamedTagEventList) int { return cmp.Compare(a.Tag, b.Tag) })
	shown.Status = imagev1.ImageStreamStatus{DockerImageRepository: repositoryReference(host, repository), Tags: tags.lists}
	shown.Annotations = maps.Clone(stored.Annotations)
	delete(shown.Annotations, rules.AnnotationTruncated)
	if tags.cut {
		if shown.Annotations == nil {
			shown.Annotations = map[string]string{}
		}
		shown.Annotations[rules.AnnotationTruncated] = "true"
	}
	return &shown
}

func repositoryReference(host, repository string) string {
	if host == "" {
		return repository
	}
	return host + "/" + repository
}
