package records

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"

	"tallyman/imageapi"
	"tallyman/imageapi/derive"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// Annotations of an ImageTag.
const (
	// AnnotationRepository is the name of its repository.
	AnnotationRepository = derive.AnnotationPrefix + "repository"
	// AnnotationPushers has the Pusher of each item of status.items, as a JSON list.
	AnnotationPushers = derive.AnnotationPrefix + "pushers"
	// AnnotationDeleted is when the tag was deleted (RFC 3339).
	AnnotationDeleted = derive.AnnotationPrefix + "deleted"
)

// tagGroup is the group of terms of ImageTags.
const tagGroup = "tag"

// TagChange is a change of a tag.
type TagChange struct {
	Repository, Tag string
	// To is the manifest that the tag points to, "" for none.
	To digest.Digest
	// Reference is the pull reference of that manifest.
	Reference string
	// Only, if it is not "", is the manifest that the tag has to point to: otherwise it stays as it is.
	Only digest.Digest
}

// tagKeys returns the keys of a tag, as it is there and as it is deleted.
func (s *Store) tagKeys(repository, tag string) (live, deleted string) {
	stream := s.options.Names.Stream(repository)
	key := streams.Key(stream.Namespace, stream.Name, tag)
	return TagPrefix + key, DeletedPrefix + key
}

// SetTag adds a change of a tag to b, with the tag's history and its repository. It returns the
// manifest that the tag pointed to, "" for none.
func (s *Store) SetTag(ctx context.Context, b *storage.Batch, c TagChange) (before digest.Digest, err error) {
	live, deleted := s.tagKeys(c.Repository, c.Tag)
	entries, err := s.get(ctx, live, deleted)
	if err != nil {
		return "", err
	}
	current, edit := readable(entries[0]), editOf(ctx, c.Repository, c.Tag)
	if current != nil {
		before = points(current)
	}
	if c.Only != "" && before != c.Only || edit == nil && before == c.To && (current != nil || entries[0] == nil) {
		b.Add(storage.Mutation{Operation: storage.Check, Key: live, Expect: revision(entries[0])})
		return before, nil
	}
	if err := s.streamChanged(ctx, b, c.Repository); err != nil {
		return before, err
	}
	if c.To == "" {
		return before, s.bury(b, current, edit, deleted, entries)
	}
	generation, tracked, err := s.generation(ctx, c.Repository)
	if err != nil {
		return before, err
	}
	if before != c.To && tracked {
		noteTracked(ctx)
	}
	next := s.successor(current, readable(entries[1]), &c)
	if before == c.To {
		next.Status.Items[0].Generation = max(generation, next.Status.Items[0].Generation)
	} else {
		s.prepend(next, c, generation, pusherOf(ctx))
		if isFollowing(ctx) && current != nil && len(next.Status.Items) > 1 {
			next.Status.Items[0].Generation = max(generation, next.Status.Items[1].Generation)
		}
		next.Status.Conditions = nil
	}
	if edit != nil {
		next.Spec = edit.Spec
	}
	put, err := putTag(live, next, revision(entries[0]))
	if err != nil {
		return before, err
	}
	b.Add(put)
	if entries[1] != nil {
		b.Add(storage.Mutation{Operation: storage.Delete, Key: deleted, Expect: entries[1].Revision})
	}
	return before, nil
}

// successor returns the tag to be changed: the one that is there, or else a new one. A tag that points to
// nothing has the history of the deleted one, nil for none.
func (s *Store) successor(current, deleted *imagev1.ImageTag, c *TagChange) *imagev1.ImageTag {
	switch {
	case current == nil && deleted == nil:
		current = &imagev1.ImageTag{Status: &imagev1.NamedTagEventList{Tag: c.Tag}}
		s.create(current, c)
	case current == nil:
		current = deleted
		s.create(current, c)
	case deleted != nil && len(current.Status.Items) == 0:
		current.Status.Items, current.Annotations[AnnotationPushers] = deleted.Status.Items, deleted.Annotations[AnnotationPushers]
	}
	return current
}

// bury makes a tag a deleted one. entries are the present ones under its two keys. With an edit that has
// a spec, a tag stays that points to nothing.
func (s *Store) bury(b *storage.Batch, tag *imagev1.ImageTag, edit *TagEdit, deleted string, entries []*storage.Entry) error {
	if tag == nil || edit == nil || edit.Spec == nil {
		b.Add(storage.Mutation{Operation: storage.Delete, Key: entries[0].Key, Expect: entries[0].Revision})
	} else {
		left := tag.DeepCopy()
		left.Spec, left.Status.Items, left.Status.Conditions = edit.Spec, nil, nil
		delete(left.Annotations, AnnotationPushers)
		put, err := putTag(entries[0].Key, left, entries[0].Revision)
		if err != nil {
			return err
		}
		b.Add(put)
	}
	if tag == nil {
		return nil
	}
	tag.Spec = nil
	tag.Annotations[AnnotationDeleted] = s.options.Now().UTC().Format(time.RFC3339)
	put, err := putTag(deleted, tag, revision(entries[1]))
	if err != nil {
		return err
	}
	b.Add(put)
	return nil
}

// create makes tag a new object, with the history that it has.
func (s *Store) create(tag *imagev1.ImageTag, c *TagChange) {
	stream, pushers := s.options.Names.Stream(c.Repository), tag.Annotations[AnnotationPushers]
	tag.ObjectMeta = metav1.ObjectMeta{
		Name: streams.TagName(stream.Name, c.Tag), Namespace: stream.Namespace, UID: uuid.NewUUID(),
		CreationTimestamp: metav1.NewTime(s.options.Now().Truncate(time.Second)),
		Annotations:       map[string]string{AnnotationRepository: c.Repository, AnnotationPushers: pushers},
	}
}

// PointsTo returns the name of the manifest that a tag points to, "" if its history is empty.
func PointsTo(tag *imagev1.ImageTag) string {
	if tag.Status == nil || len(tag.Status.Items) == 0 {
		return ""
	}
	return tag.Status.Items[0].Image
}

func points(tag *imagev1.ImageTag) digest.Digest { return digest.Digest(PointsTo(tag)) }

// Tag returns the manifest that a tag points to by its record; known is false if there is none.
func (s *Store) Tag(ctx context.Context, repository, tag string) (to digest.Digest, known bool, err error) {
	live, _ := s.tagKeys(repository, tag)
	entry, _, err := storage.GetEntry(ctx, s.options.Backend, live, storage.Read{})
	if err != nil {
		return "", false, err
	}
	if stored := readable(entry); stored != nil {
		return points(stored), true, nil
	}
	return "", false, nil
}

// readable returns the ImageTag of an entry, nil if there is none that can be read.
func readable(e *storage.Entry) *imagev1.ImageTag {
	tag, err := DecodeTag(e)
	if err != nil {
		slog.Warn("image tag not readable", "err", err)
		return nil
	}
	return tag
}

func revision(e *storage.Entry) int64 {
	if e == nil {
		return 0
	}
	return e.Revision
}

func putTag(key string, tag *imagev1.ImageTag, expect int64) (storage.Mutation, error) {
	body, err := runtime.Encode(codec, tag)
	if err != nil {
		return storage.Mutation{}, err
	}
	return storage.Mutation{Key: key, Expect: expect, Value: storage.Body(body), Terms: []storage.TermChange{{Group: tagGroup, Terms: tagTerms(tag)}}}, nil
}

var codec = imageapi.Codecs.LegacyCodec(imagev1.GroupVersion)

// DecodeTag returns the ImageTag of an entry under TagPrefix or DeletedPrefix, which has a status and
// annotations, nil for nil. It fails for one that cannot be read.
func DecodeTag(e *storage.Entry) (*imagev1.ImageTag, error) {
	if e == nil {
		return nil, nil
	}
	tag := &imagev1.ImageTag{}
	if err := decode(e, "ImageTag", tag); err != nil {
		return nil, err
	}
	if tag.Status == nil {
		tag.Status = &imagev1.NamedTagEventList{}
	}
	if tag.Annotations == nil {
		tag.Annotations = map[string]string{}
	}
	return tag, nil
}

// decode decodes the object of an entry, of a kind, into an empty one.
func decode(e *storage.Entry, kind string, into runtime.Object) error {
	if e.Err != nil {
		return fmt.Errorf("%s: %w", e.Key, e.Err)
	}
	if imageapi.DecodeStored(e.Value.Body(), kind, into) {
		return nil
	}
	if err := runtime.SetZeroValue(into); err != nil {
		return err
	}
	if err := runtime.DecodeInto(codec, e.Value.Body(), into); err != nil {
		return fmt.Errorf("%s: %w: %w", e.Key, storage.ErrCorrupt, err)
	}
	return nil
}

// Terms of ImageTags whose source is in another registry.
const (
	importTerm          = "import=pending"
	importScheduledTerm = "import=scheduled"
)

// tagTerms returns the terms of an ImageTag: the manifest that it points to, the tag of its stream that it tracks,
// and whether it is to be imported.
func tagTerms(tag *imagev1.ImageTag) []string {
	terms := []string{ImageTerm(points(tag))}
	if tracked := trackedTag(tag); tracked != "" {
		terms = append(terms, trackTerm(tracked))
	}
	if streams.ImportPending(tag) {
		terms = append(terms, importTerm)
	}
	if streams.ImportScheduled(tag) {
		terms = append(terms, importScheduledTerm)
	}
	return terms
}

// ImageTerm returns the term of the ImageTags that point to a manifest.
func ImageTerm(to digest.Digest) string { return "image=" + to.String() }
