package records

import (
	"context"
	"fmt"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/uuid"

	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// Relocate moves the tags that are in another namespace than Options.Names says to theirs, with their
// history, as new objects. It returns how many there were.
func (s *Store) Relocate(ctx context.Context) (moved int, err error) {
	for _, prefix := range []string{TagPrefix, DeletedPrefix} {
		err := storage.Each(ctx, s.options.Backend, prefix, false, func(e *storage.Entry) error {
			to, repository, tag := s.placeOf(e)
			if to == "" || to == e.Key {
				return nil
			}
			moved++
			return s.relocate(ctx, e.Key, to, repository, tag)
		})
		if err != nil {
			return moved, err
		}
	}
	return moved, storage.Each(ctx, s.options.Backend, StreamPrefix, false, func(e *storage.Entry) error { return s.relocateStream(ctx, e) })
}

// relocateStream moves a stream that is in another namespace than Options.Names says, as a new object.
func (s *Store) relocateStream(ctx context.Context, e *storage.Entry) error {
	stream, err := DecodeStream(e)
	if err != nil || stream.Annotations[AnnotationRepository] == "" {
		return nil //nolint:nilerr // one that cannot be read is for `store check`
	}
	name := s.options.Names.Stream(stream.Annotations[AnnotationRepository])
	to, change := streamKeys(name)
	if to == e.Key {
		return nil
	}
	there, _, err := storage.GetEntry(ctx, s.options.Backend, to, storage.Read{})
	if err != nil {
		return err
	}
	_, former := streamKeys(streams.Stream{Namespace: stream.Namespace, Name: stream.Name})
	b := &storage.Batch{}
	b.Add(storage.Mutation{Operation: storage.Delete, Key: e.Key, Expect: e.Revision})
	b.Add(storage.Mutation{Operation: storage.Delete, Key: former, Expect: storage.AnyRevision})
	if there == nil {
		stream.Namespace, stream.Name, stream.UID = name.Namespace, name.Name, uuid.NewUUID()
		body, err := runtime.Encode(codec, stream)
		if err != nil {
			return err
		}
		b.Add(storage.Mutation{Key: to, Value: storage.Body(body), Terms: streamTerms(stream)})
		b.AddLast(storage.Mutation{Key: change, Expect: storage.AnyRevision, Value: storage.Body(s.changeValue())})
	}
	_, err = b.Commit(ctx, s.options.Backend) // what changes meanwhile is moved the next time
	return err
}

// placeOf returns the key that a tag is to have, "" if its record does not say which tag it is.
func (s *Store) placeOf(e *storage.Entry) (key, repository, tag string) {
	object := readable(e)
	if object == nil {
		return "", "", ""
	}
	repository = object.Annotations[AnnotationRepository]
	_, tag, err := streams.ParseTagName(object.Name)
	if err != nil || repository == "" {
		return "", "", ""
	}
	live, deleted := s.tagKeys(repository, tag)
	if strings.HasPrefix(e.Key, DeletedPrefix) {
		return deleted, repository, tag
	}
	return live, repository, tag
}

// relocateTries bounds how often a tag is moved that others change meanwhile.
const relocateTries = 5

func (s *Store) relocate(ctx context.Context, from, to, repository, tag string) error {
	for range relocateTries {
		entries, err := s.get(ctx, from, to)
		if err != nil {
			return err
		}
		if entries[0] == nil {
			return nil
		}
		b := &storage.Batch{}
		b.Add(storage.Mutation{Operation: storage.Delete, Key: from, Expect: entries[0].Revision})
		if former := readable(entries[0]); former != nil {
			put, err := putTag(to, s.merge(former, readable(entries[1]), TagChange{Repository: repository, Tag: tag}), revision(entries[1]))
			if err != nil {
				return err
			}
			b.Add(put)
		}
		if err := s.streamChanged(ctx, b, repository); err != nil {
			return err
		}
		if committed, err := b.Commit(ctx, s.options.Backend); committed || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s was not moved to %s: it changes all the time", from, to)
}

// merge returns the tag at its place: former as a new object, or the one that is there already, nil for
// none, with the history of former behind its own.
func (s *Store) merge(former, there *imagev1.ImageTag, c TagChange) *imagev1.ImageTag {
	if there == nil {
		deleted, wasDeleted := former.Annotations[AnnotationDeleted]
		s.create(former, &c)
		if wasDeleted {
			former.Annotations[AnnotationDeleted] = deleted
		}
		return former
	}
	s.setHistory(there, append(there.Status.Items, former.Status.Items...), append(pushersOf(there), pushersOf(former)...))
	return there
}
