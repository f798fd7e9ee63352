package records

import (
	"context"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// annotationTracking is on a stream once one of its tags was to track another one: pushes look for such
// tags then.
const annotationTracking = derive.AnnotationPrefix + "tracking-tags"

// trackedTag returns the tag of the same stream that a tag tracks, "" for none.
func trackedTag(tag *imagev1.ImageTag) string {
	stream, _, err := streams.ParseTagName(tag.Name)
	if err != nil {
		return ""
	}
	return tracks(streams.Stream{Namespace: tag.Namespace, Name: stream}, tag.Spec)
}

func tracks(own streams.Stream, spec *imagev1.TagReference) string {
	if spec == nil || spec.From == nil || spec.From.Kind != streams.KindImageStreamTag {
		return ""
	}
	if source, name, ok := streams.Source(own, spec.From); ok && source == own {
		return name
	}
	return ""
}

func trackTerm(tag string) string { return "tracks=" + tag }

// MarkTracking notes on a stream, as it is stored, that one of some spec tags tracks another tag of it.
func MarkTracking(stored *imagev1.ImageStream, specs []imagev1.TagReference) {
	name := streams.Stream{Namespace: stored.Namespace, Name: stored.Name}
	for i := range specs {
		if tracks(name, &specs[i]) == "" {
			continue
		}
		if stored.Annotations == nil {
			stored.Annotations = map[string]string{}
		}
		stored.Annotations[annotationTracking] = "true"
	}
}

// Tracked says whether a tag has moved that others may track.
type Tracked struct{ is bool }

// Is reports it.
func (t *Tracked) Is() bool { return t.is }

type trackedKey struct{}

// WithTracked returns a context whose change of one tag (SetTag) is noted in t if other tags of the stream
// may track the tag.
func WithTracked(ctx context.Context, t *Tracked) context.Context {
	return context.WithValue(ctx, trackedKey{}, t)
}

func noteTracked(ctx context.Context) {
	if t, ok := ctx.Value(trackedKey{}).(*Tracked); ok {
		t.is = true
	}
}

type followingKey struct{}

// WithFollowing returns a context whose changes of tags follow those of the tags that they track: the spec
// of a tag is still the reason for its target.
func WithFollowing(ctx context.Context) context.Context {
	return context.WithValue(ctx, followingKey{}, true)
}

func isFollowing(ctx context.Context) bool { return ctx.Value(followingKey{}) != nil }

// TrackingTags returns the tags of a repository that track another one.
func (s *Store) TrackingTags(ctx context.Context, repository, tag string) (names []string, err error) {
	prefix := s.tagPrefix(repository)
	carries := func(e *storage.Entry) bool {
		object := readable(e)
		return object != nil && trackedTag(object) == tag
	}
	err = s.each(ctx, prefix, trackTerm(tag), carries, func(e *storage.Entry) error {
		names = append(names, e.Key[len(prefix):])
		return nil
	})
	return names, err
}
