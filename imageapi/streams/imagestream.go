package streams

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/rules"
)

// FinalizerTags is on every stream: a stream that is deleted goes once its tags are gone.
const FinalizerTags = rules.AnnotationPrefix + "tags"

// An ImageStream shows up to maxTagBytes of tags, in about the bytes of their JSON. Tags keeps keptTagBytes
// of more, for those that come and go.
const (
	maxTagBytes  = 1 << 20
	keptTagBytes = 2 * maxTagBytes
)

// Tags collects the tags of one stream: as many as fit, the ones that were pushed last. Its zero value
// has none. The order in which they come makes no difference.
type Tags struct {
	kept []shownTag
	size int
	cut  bool // something was left out, if only history
	all  int  // tags that were pushed, those that were left out too
	// left is the newest tag that was left out, nil for none: all that are newer are kept.
	left *shownTag
}

type shownTag struct {
	spec   *imagev1.TagReference
	status imagev1.NamedTagEventList
}

// Add adds a tag called name.
func (t *Tags) Add(name string, tag *imagev1.ImageTag) {
	added := shownTag{spec: tag.Spec, status: *tag.Status}
	added.status.Tag = name
	t.kept, t.size, t.all = append(t.kept, added), t.size+added.bytes(), t.all+pushes(tag)
	if t.size > keptTagBytes+maxTagBytes { // not with each
		var left *shownTag
		t.kept, t.size, left = newest(t.kept, keptTagBytes)
		if t.cut = true; t.left == nil || left != nil && newestFirst(left.status, t.left.status) < 0 {
			t.left = left
		}
	}
}

// Len returns the number of tags.
func (t *Tags) Len() int { return len(t.kept) }

// TagChange is a tag before and after a change, nil where there is none.
type TagChange struct{ Before, After *imagev1.ImageTag }

// Changed returns the tags after changes of some, by their names. ok is false if that depends on something that
// was left out.
func (t *Tags) Changed(changes map[string]TagChange) (changed *Tags, ok bool) {
	changed = &Tags{kept: make([]shownTag, 0, len(t.kept)+len(changes)), cut: t.cut, left: t.left, all: t.all}
	for i := range t.kept {
		tag := &t.kept[i]
		if _, replaced := changes[tag.status.Tag]; !replaced {
			changed.kept, changed.size = append(changed.kept, *tag), changed.size+tag.bytes()
		}
	}
	for name, tag := range changes {
		changed.all -= pushes(tag.Before)
		if tag.After != nil {
			changed.Add(name, tag.After)
		}
	}
	return changed, !changed.cut || changed.newerThanLeft() > maxTagBytes
}

// newerThanLeft returns the size of the tags that are newer than those that were left out, without history.
func (t *Tags) newerThanLeft() (size int) {
	for i := range t.kept {
		if tag := t.kept[i]; t.left == nil || newestFirst(tag.status, t.left.status) < 0 {
			tag.forget()
			size += tag.bytes()
		}
	}
	return size
}

// pushes returns 1 for a tag that status.tags shows, 0 for one that was not pushed, or is not there.
func pushes(tag *imagev1.ImageTag) int {
	if tag == nil || !inStatus(tag.Status) {
		return 0
	}
	return 1
}

func inStatus(tag *imagev1.NamedTagEventList) bool {
	return len(tag.Items) > 0 || len(tag.Conditions) > 0
}

// forget leaves the history out.
func (s *shownTag) forget() {
	if items := s.status.Items; len(items) > 1 {
		s.status.Items = items[:1:1]
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

// newest returns the tags that were pushed last, without history, as many as fit, their size, and the first that
// does not fit, nil for none.
func newest(tags []shownTag, bytes int) (kept []shownTag, size int, left *shownTag) {
	kept = slices.Clone(tags)
	slices.SortStableFunc(kept, func(a, b shownTag) int { return newestFirst(a.status, b.status) })
	for i := range kept {
		kept[i].forget()
		if size += kept[i].bytes(); size > bytes && i > 0 {
			first := kept[i]
			return kept[:i], size - first.bytes(), &first
		}
	}
	return kept, size, nil
}

// shown returns the tags that an ImageStream shows, sorted by name.
func (t *Tags) shown() (tags []shownTag, cut bool) {
	tags, cut = slices.Clone(t.kept), t.cut
	if cut || t.size > maxTagBytes {
		tags, _, _ = newest(t.kept, maxTagBytes)
		cut = true
	}
	slices.SortFunc(tags, func(a, b shownTag) int { return cmp.Compare(a.status.Tag, b.status.Tag) })
	return tags, cut
}

func newestFirst(a, b imagev1.NamedTagEventList) int {
	if c := pushed(&b).Compare(pushed(&a)); c != 0 {
		return c
	}
	return strings.Compare(a.Tag, b.Tag)
}

// ImageStream returns an ImageStream with its tags, sorted by name, as OpenShift shows it. stored is the
// stream as it is stored, without them. If there are more tags than an ImageStream shows, it has the annotations
// rules.AnnotationTruncated and rules.AnnotationTagCount.
func ImageStream(stored *imagev1.ImageStream, tags *Tags, hosts Hosts, repository string) *imagev1.ImageStream {
	shown := *stored
	all, cut := tags.shown()
	shown.Status = imagev1.ImageStreamStatus{DockerImageRepository: RepositoryReference(hosts.Own, repository)}
	if hosts.Public != "" {
		shown.Status.PublicDockerImageRepository = RepositoryReference(hosts.Public, repository)
	}
	shown.Spec.Tags = nil
	for i := range all {
		tag := &all[i]
		if tag.spec != nil {
			shown.Spec.Tags = append(shown.Spec.Tags, *tag.spec)
		}
		if inStatus(&tag.status) {
			shown.Status.Tags = append(shown.Status.Tags, tag.status)
		}
	}
	if !slices.Contains(shown.Finalizers, FinalizerTags) {
		shown.Finalizers = append(slices.Clone(shown.Finalizers), FinalizerTags)
	}
	shown.Annotations = maps.Clone(stored.Annotations)
	delete(shown.Annotations, rules.AnnotationTruncated)
	delete(shown.Annotations, rules.AnnotationTagCount)
	if cut {
		if shown.Annotations == nil {
			shown.Annotations = map[string]string{}
		}
		shown.Annotations[rules.AnnotationTruncated] = "true"
		shown.Annotations[rules.AnnotationTagCount] = strconv.Itoa(tags.all)
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
	delete(stored.Annotations, rules.AnnotationTagCount)
	return stored
}

// Hosts are the addresses of the registry, each as host[:port], "" for none.
type Hosts struct {
	// Own is that of pull references.
	Own string
	// Public is the one that the operator has given the registry, for clients everywhere.
	Public string
}

// RepositoryReference returns the pull reference of a repository, without a tag. host is the registry's own
// host[:port], "" for none.
func RepositoryReference(host, repository string) string {
	if host == "" {
		return repository
	}
	return host + "/" + repository
}
