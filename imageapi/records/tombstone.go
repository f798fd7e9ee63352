package records

import (
	"context"
	"log/slog"
	"time"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/storage"
)

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
