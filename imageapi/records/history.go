package records

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/storage"
)

// prepend makes the change the newest item of the history, which no clock puts before the one
// below it. Its generation is greater than that of the item below it, and at least the stream's.
func (s *Store) prepend(tag *imagev1.ImageTag, c TagChange, generation int64, by Pusher) {
	item := imagev1.TagEvent{Created: metav1.NewTime(s.options.Now().Truncate(time.Second)), DockerImageReference: c.Reference, Image: c.To.String(), Generation: generation}
	items := tag.Status.Items
	if len(items) > 0 {
		item.Generation = max(generation, items[0].Generation+1)
		if item.Created.Time.Before(items[0].Created.Time) {
			item.Created = items[0].Created
		}
	}
	s.setHistory(tag, append([]imagev1.TagEvent{item}, items...), append([]Pusher{by}, pushersOf(tag)...))
}

// setHistory sets the items of a tag, each with its Pusher, as many as are kept.
func (s *Store) setHistory(tag *imagev1.ImageTag, items []imagev1.TagEvent, pushers []Pusher) {
	kept := min(len(items), s.options.Depth)
	text, err := json.Marshal(pushers[:kept])
	if err != nil {
		panic(err) // two texts each
	}
	tag.Status.Items, tag.Annotations[AnnotationPushers] = items[:kept], string(text)
}

// pushersOf returns the Pusher of each item of a tag.
func pushersOf(tag *imagev1.ImageTag) []Pusher {
	pushers := make([]Pusher, len(tag.Status.Items))
	var stored []Pusher
	_ = json.Unmarshal([]byte(tag.Annotations[AnnotationPushers]), &stored) // unknown ones stay empty
	copy(pushers, stored)
	return pushers
}

// expired reports whether a tag was deleted longer ago than Options.Tombstone.
func (s *Store) expired(tag *imagev1.ImageTag) bool {
	deleted, err := time.Parse(time.RFC3339, tag.Annotations[AnnotationDeleted])
	return err == nil && s.options.Now().Sub(deleted) > s.options.Tombstone
}

// Expire deletes the tags that were deleted longer ago than Options.Tombstone. It returns their
// number.
func (s *Store) Expire(ctx context.Context) (number int, err error) {
	err = storage.Each(ctx, s.options.Backend, DeletedPrefix, false, func(e *storage.Entry) error {
		tag, err := DecodeTag(e)
		if err != nil || !s.expired(tag) {
			return nil // one that cannot be read is for `store check`
		}
		result, err := s.options.Backend.Commit(ctx, storage.Mutation{Operation: storage.Delete, Key: e.Key, Expect: e.Revision})
		if err == nil && result.Succeeded {
			number++
		}
		return err
	})
	return number, err
}

// expireInterval is how often deleted tags are looked at.
const expireInterval = 10 * time.Minute

// KeepExpiring calls Expire again and again until ctx ends.
func (s *Store) KeepExpiring(ctx context.Context) {
	ticker := time.NewTicker(expireInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		number, err := s.Expire(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			slog.Warn("deleted tags not forgotten yet", "err", err)
		case number > 0:
			slog.Info("deleted tags forgotten", "number", number)
		}
	}
}
