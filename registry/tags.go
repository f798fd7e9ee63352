package registry

import (
	"context"
	"io"
	"strings"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/records"
	"tallyman/registry/logging"
)

type tags struct {
	distribution.TagService
	repository *repository
}

// Tag implements distribution.TagService: the tag is true once the registry has it.
func (t *tags) Tag(ctx context.Context, tag string, to imagespec.Descriptor) error {
	change := t.repository.change(ctx, t.TagService, tag, to.Digest, func() error { return t.TagService.Tag(ctx, tag, to) })
	tracked := &records.Tracked{}
	err := unavailable(ctx, t.repository.tracker.Tagged(records.WithTracked(ctx, tracked), t.repository.Repository, tag, to.Digest, t.TagService, change))
	if err == nil && tracked.Is() {
		t.repository.follow(ctx, tag, to)
	}
	return err
}

// follow moves the tags that track another one, which points to a manifest now. The move of that one is
// done, so failures are logged.
func (r *repository) follow(ctx context.Context, tag string, to imagespec.Descriptor) {
	names, err := r.tracker.Catalog().Records().TrackingTags(ctx, r.name(), tag)
	if err != nil {
		logging.For(ctx).Warn("tags that track another one not found", "repository", r.name(), "tag", tag, "err", err)
	}
	for _, name := range names {
		err := r.Tags(ctx).Tag(records.WithFollowing(ctx), name, to)
		logging.Audit(ctx, "tag", r.name(), name, to.Digest.String(), err)
		if err != nil {
			logging.For(ctx).Warn("tag did not follow the one that it tracks", "repository", r.name(), "tag", name, "tracks", tag, "err", err)
		}
	}
}

// Untag implements distribution.TagService.
func (t *tags) Untag(ctx context.Context, tag string) error {
	change := t.repository.change(ctx, t.TagService, tag, "", func() error { return t.TagService.Untag(ctx, tag) })
	err := unavailable(ctx, t.repository.tracker.Tagged(ctx, t.repository.Repository, tag, "", t.TagService, change))
	logging.Audit(ctx, "untag", t.repository.name(), tag, "", err)
	return err
}

// List implements distribution.TagService from the records, in the order of bytes, where they have
// tags of the repository and are complete. distribution looks at each tag in the storage.
func (t *tags) List(ctx context.Context, limit int, last string) ([]string, error) {
	if limit != 0 && t.repository.tracker.HasAllTags(ctx) {
		behind := strings.ReplaceAll(last, "/", "\x00") // as distribution compares
		names, more, err := t.repository.tracker.Catalog().Records().TagNames(ctx, t.repository.name(), limit, behind)
		switch {
		case err != nil:
			logging.For(ctx).Debug("tags not listed from the records", "repository", t.repository.name(), "err", err)
		case more:
			return names, nil
		case len(names) > 0:
			return names, io.EOF // as there are no more
		}
	}
	return t.TagService.List(ctx, limit, last)
}

// Lookup implements distribution.TagService. The tags of a manifest that this request has deleted are
// known from before.
func (t *tags) Lookup(ctx context.Context, to imagespec.Descriptor) ([]string, error) {
	if notes, ok := ctx.Value(putNotesKey{}).(*putNotes); ok {
		if noted := notes.tags.Load(); noted != nil && noted.of == to.Digest {
			return noted.names, nil
		}
	}
	return t.TagService.Lookup(ctx, to)
}

// notedTags are the tags that point to a manifest.
type notedTags struct {
	of    digest.Digest
	names []string
}

// noteTags notes the tags of a manifest before it is deleted, which distribution deletes afterwards. It
// would read every tag of the repository to find them. It returns them, nil if they are not known.
func (r *repository) noteTags(ctx context.Context, name digest.Digest) []string {
	notes, ok := ctx.Value(putNotesKey{}).(*putNotes)
	if !ok || !r.tracker.HasAllTags(ctx) {
		return nil
	}
	names, err := r.tracker.Catalog().Records().TagsOf(ctx, r.name(), name, 0)
	if err != nil {
		logging.For(ctx).Debug("tags not looked up in the records", "repository", r.name(), "digest", name.String(), "err", err)
		return nil
	}
	notes.tags.Store(&notedTags{name, names})
	return names
}
