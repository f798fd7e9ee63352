package records

import (
	"context"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// StreamState is a stream as it is stored, with some of its tags.
type StreamState struct {
	// Stream is nil if there is none. It has no tags.
	Stream *imagev1.ImageStream
	// Revision is that of the last change of the stream or of one of its tags, 0 for none.
	Revision int64
	// Tags are the ones that were read and are there, each without its Image.
	Tags map[string]TagState
}

// TagState is a tag as it is stored.
type TagState struct {
	Tag      *imagev1.ImageTag
	Revision int64
}

// TagEdit is a change of a tag by a client of the API, besides the manifest that it points to.
type TagEdit struct {
	Tag string
	// Spec is the new spec of the tag, nil for none.
	Spec *imagev1.TagReference
	// Status, if set, is to take the place of Before, as far as they differ. Both point to the same manifest.
	Status, Before *imagev1.NamedTagEventList
}

type editKey struct{}

type repositoryEdit struct {
	repository string
	edit       *TagEdit
}

// WithEdit returns a context whose change of a tag of a repository (SetTag) makes an edit, too, in the same
// commit. Its Status is not used.
func WithEdit(ctx context.Context, repository string, edit *TagEdit) context.Context {
	return context.WithValue(ctx, editKey{}, repositoryEdit{repository, edit})
}

func editOf(ctx context.Context, repository, tag string) *TagEdit {
	if of, ok := ctx.Value(editKey{}).(repositoryEdit); ok && of.repository == repository && of.edit.Tag == tag {
		return of.edit
	}
	return nil
}

// ReadStream reads a stream and some of its tags, as they are at one time. It fails for a record that
// cannot be read.
func (s *Store) ReadStream(ctx context.Context, name streams.Stream, tags ...string) (*StreamState, error) {
	stream, change := streamKeys(name)
	keys := []string{stream, change}
	for _, tag := range tags {
		keys = append(keys, TagPrefix+streams.Key(name.Namespace, name.Name, tag))
	}
	result, err := s.options.Backend.Get(ctx, storage.GetRequest{Keys: keys})
	if err != nil {
		return nil, err
	}
	state := &StreamState{Revision: revision(result.Entries[1]), Tags: map[string]TagState{}}
	if result.Entries[0] != nil {
		if state.Stream, err = DecodeStream(result.Entries[0]); err != nil {
			return nil, err
		}
	}
	for i, tag := range tags {
		entry := result.Entries[i+2]
		if entry == nil {
			continue
		}
		object, err := DecodeTag(entry)
		if err != nil {
			return nil, err
		}
		state.Tags[tag] = TagState{object, entry.Revision}
	}
	return state, nil
}

// EditStream returns the commit that changes a stream, and tags that go on pointing to the same manifest. It
// fails if the stream or one of its tags has changed since state was read. The stream to be has no tags.
func (s *Store) EditStream(state *StreamState, to *imagev1.ImageStream, edits []TagEdit) ([]storage.Mutation, error) {
	name := streams.Stream{Namespace: to.Namespace, Name: to.Name}
	repository, err := s.options.Names.Repository(name)
	if err != nil {
		return nil, err
	}
	stream, change := streamKeys(name)
	body, err := runtime.Encode(codec, to)
	if err != nil {
		return nil, err
	}
	put := storage.Mutation{Key: stream, Expect: storage.AnyRevision, Value: storage.Body(body), Terms: streamTerms(to)} // the change decides
	var commit []storage.Mutation
	if state.Stream == nil {
		put.Expect = 0
		commit = append(commit, storage.Mutation{Key: repositoryKey(repository), Expect: storage.AnyRevision, Value: storage.Body(s.changeValue())})
	}
	commit = append(commit, put)
	for i := range edits {
		m, err := s.editTag(repository, state, &edits[i])
		if err != nil {
			return nil, err
		}
		if m != nil {
			commit = append(commit, *m)
		}
	}
	// It comes last, as in streamChanged.
	return append(commit, storage.Mutation{Key: change, Expect: state.Revision, Value: storage.Body(s.changeValue())}), nil
}

// editTag returns the change of an edit of a tag, nil for none. A tag without spec and status goes.
func (s *Store) editTag(repository string, state *StreamState, edit *TagEdit) (*storage.Mutation, error) {
	live, _ := s.tagKeys(repository, edit.Tag)
	before, there := state.Tags[edit.Tag]
	tag := before.Tag
	if there {
		tag = tag.DeepCopy()
	} else {
		tag = s.successor(nil, nil, &TagChange{Repository: repository, Tag: edit.Tag})
	}
	tag.Spec = edit.Spec
	if edit.Status != nil {
		items := edit.items(tag.Status.Items)
		tag.Status.Conditions = edit.Status.Conditions
		s.setHistory(tag, items, pushersOfItems(tag, items))
	}
	if tag.Spec == nil && len(tag.Status.Items) == 0 && len(tag.Status.Conditions) == 0 {
		if there {
			return &storage.Mutation{Operation: storage.Delete, Key: live, Expect: before.Revision}, nil
		}
		return nil, nil
	}
	put, err := putTag(live, tag, before.Revision)
	return &put, err
}

// items returns the items of a tag after the edit. Those that the edit does not know stay: a stream shows
// a part of a long history.
func (e *TagEdit) items(stored []imagev1.TagEvent) (items []imagev1.TagEvent) {
	find := func(in []imagev1.TagEvent, item *imagev1.TagEvent) int {
		return slices.IndexFunc(in, func(other imagev1.TagEvent) bool { return streams.SameItem(&other, item) })
	}
	for i := range e.Status.Items {
		if item := &e.Status.Items[i]; find(stored, item) < 0 {
			items = append(items, *item)
		}
	}
	for i := range stored {
		if at := find(e.Status.Items, &stored[i]); at >= 0 {
			items = append(items, e.Status.Items[at])
		} else if e.Before == nil || find(e.Before.Items, &stored[i]) < 0 {
			items = append(items, stored[i])
		}
	}
	return items
}

// pushersOfItems returns the Pusher of each of some items, of which the tag has some.
func pushersOfItems(tag *imagev1.ImageTag, items []imagev1.TagEvent) []Pusher {
	known := pushersOf(tag)
	pushers := make([]Pusher, len(items))
	for i := range items {
		for j := range tag.Status.Items {
			if had := &tag.Status.Items[j]; had.Image == items[i].Image && had.Created.Equal(&items[i].Created) {
				pushers[i] = known[j]
			}
		}
	}
	return pushers
}

// DeleteStream returns the commit that deletes a stream. It fails if the stream or one of its tags has
// changed since state was read. Tags that are there have the stream made anew by their next change, or by
// CompleteStreams.
func (s *Store) DeleteStream(state *StreamState, name streams.Stream) []storage.Mutation {
	stream, change := streamKeys(name)
	return []storage.Mutation{
		{Operation: storage.Delete, Key: stream, Expect: storage.AnyRevision}, {Operation: storage.Delete, Key: change, Expect: state.Revision},
	}
}
