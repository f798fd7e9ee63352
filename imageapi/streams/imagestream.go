package streams

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/rules"
)

// FinalizerTags is on every stream: a stream that is deleted goes once its tags are gone.
const FinalizerTags = rules.AnnotationPrefix + "tags"

// maxTagBytes bounds the tags that an ImageStream shows, in about the bytes of their JSON.
const maxTagBytes = 1 << 20

// Tags collects the tags of one stream: as many as fit, the ones that were pushed last. Its zero value
// has none.
type Tags struct {
	shown []shownTag
	size  int
	cut   bool
}

type shownTag struct {
	spec   *imagev1.TagReference
	status imagev1.NamedTagEventList
}

// Add adds a tag called name.
func (t *Tags) Add(name string, tag *imagev1.ImageTag) {
	shown := shownTag{spec: tag.Spec, status: *tag.Status}
	shown.status.Tag = name
	t.shown, t.size = append(t.shown, shown), t.size+shown.bytes()
	if t.size > 2*maxTagBytes { // not with each
		t.trim()
	}
}

// bytes returns about the size of a tag in JSON.
func (s *shownTag) bytes() int {
	size := 40 + len(s.status.Tag)
	for i := range s.status.Items {
		size += 100 + len(s.status.Items[i].DockerImageReference) + len(s.status.Items[i].Image)
	}
	for i := range s.status.Conditions {
		size += 150 + len(s.status.Conditions[i].Reason) + len(s.status.Conditions[i].Message)
	}
	if s.spec != nil {
		size += s.spec.Size() + 150
	}
	return size
}

// trim leaves out history, and then the tags that were pushed first, until the rest fits.
func (t *Tags) trim() {
	if t.size <= maxTagBytes {
		return
	}
	t.cut, t.size = true, 0
	slices.SortStableFunc(t.shown, func(a, b shownTag) int { return newestFirst(a.status, b.status) })
	kept := 0
	for ; kept < len(t.shown); kept++ {
		tag := &t.shown[kept]
		if len(tag.status.Items) > 1 {
			tag.status.Items = tag.status.Items[:1:1]
		}
		if t.size += tag.bytes(); t.size > maxTagBytes && kept > 0 {
			t.size -= tag.bytes()
			break
		}
	}
	t.shown = t.shown[:kept]
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
	slices.SortFunc(tags.shown, func(a, b shownTag) int { return cmp.Compare(a.status.Tag, b.status.Tag) })
	shown.Status = imagev1.ImageStreamStatus{DockerImageRepository: repositoryReference(host, repository)}
	shown.Spec.Tags = nil
	for i := range tags.shown {
		tag := &tags.shown[i]
		if tag.spec != nil {
			shown.Spec.Tags = append(shown.Spec.Tags, *tag.spec)
		}
		if len(tag.status.Items) > 0 || len(tag.status.Conditions) > 0 {
			shown.Status.Tags = append(shown.Status.Tags, tag.status)
		}
	}
	if !slices.Contains(shown.Finalizers, FinalizerTags) {
		shown.Finalizers = append(slices.Clone(shown.Finalizers), FinalizerTags)
	}
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

// Stored returns a stream as it is stored: without its tags, and all that is added when it is read.
func Stored(shown *imagev1.ImageStream) *imagev1.ImageStream {
	stored := shown.DeepCopy()
	stored.ResourceVersion = ""
	stored.Spec.Tags, stored.Status = nil, imagev1.ImageStreamStatus{}
	stored.Finalizers = slices.DeleteFunc(stored.Finalizers, func(f string) bool { return f == FinalizerTags })
	if len(stored.Finalizers) == 0 {
		stored.Finalizers = nil
	}
	delete(stored.Annotations, rules.AnnotationTruncated)
	return stored
}

func repositoryReference(host, repository string) string {
	if host == "" {
		return repository
	}
	return host + "/" + repository
}
