package tracker

import (
	"context"
	"slices"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
)

// Deleted deletes a manifest and takes its repository off the Image. A note in the store, or else an
// entry, comes first: if the process dies in between, the next one looks. tags are those that point to
// it, as far as they are known, which the same request is going to delete.
func (t *Tracker) Deleted(ctx context.Context, repository string, service distribution.ManifestService, name digest.Digest, tags []string) error {
	end, noted := t.underway.begin(ctx, repository)
	defer end()
	m, tags := journal.Entry{Repository: repository, Digest: name}, together(ctx, tags)
	deleted, failure := false, error(nil) // of the deletion itself
	var locks *held
	err := t.options.Catalog.VerifyOutside(context.WithoutCancel(ctx), func(ctx context.Context) error {
		if deleted { // signatures were verified, while the registry may have changed
			ctx, cancel := detached(ctx)
			defer cancel()
			return t.reconcile(ctx, m)
		}
		locks = t.lockAndRead(ctx, m, t.options.Catalog.RemovalKeys(repository, name, tags), tags...)
		unlock := locks.unlock
		defer func() { unlock() }()
		m.Subject = t.subjectOf(ctx, service, m)
		if !noted {
			if m, failure = t.noteDeletion(ctx, m); failure != nil {
				return nil
			}
		}
		if failure = service.Delete(ctx, name); failure != nil {
			t.forget(ctx, m)
			return nil
		}
		deleted = true
		removed, err := t.recordDeletion(locks.first(ctx), m)
		// Only if the tags that the request is going to delete are those that are recorded as deleted.
		if err == nil && locks.alone && m.Subject == "" && len(tags) > 0 && slices.Equal(tags, removed) {
			requestOf(ctx).untagging = &untagging{repository, tags, unlock}
			unlock = func() {} // at the end of the request
		}
		return err
	})
	if failure != nil {
		return failure
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	switch {
	case err != nil:
		logging.For(ctx).Warn("deletion not recorded yet", append(m.Attributes(), "err", err)...)
		t.requeue(ctx, m)
	case !locks.alone:
		t.requeue(ctx, m)
	default:
		t.forget(ctx, m)
	}
	if err == nil {
		logging.For(ctx).Info("manifest deleted", m.Attributes()...)
	}
	return nil
}

// together returns the tags that are deleted in the commit of their manifest: none if the request does not
// delete them, if one refers to another manifest, or if there are too many.
func together(ctx context.Context, tags []string) []string {
	if requestOf(ctx) == nil || len(tags) > catalog.TagsAtOnce || slices.ContainsFunc(tags, refersByTag) {
		return nil
	}
	return tags
}

// noteDeletion writes the entry of a deletion. A disk that is full is to be emptied all the same: then
// the entry is written when that is possible.
func (t *Tracker) noteDeletion(ctx context.Context, m journal.Entry) (journal.Entry, error) {
	noted, err := t.journal.Add(ctx, m)
	if err != nil && !isFull(err) {
		logging.For(ctx).Error("deletion refused: it cannot be noted", append(m.Attributes(), "err", err)...)
		return m, &UnavailableError{m.Repository, err}
	}
	if err != nil {
		logging.For(ctx).Warn("deletion not noted, as the registry's storage is full", append(m.Attributes(), "err", err)...)
	}
	return noted, nil
}

// recordDeletion records that the repository holds the manifest no longer, and returns the tags that
// went with it.
func (t *Tracker) recordDeletion(ctx context.Context, m journal.Entry) (tags []string, err error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	var references []catalog.Reference
	if m.Subject != "" {
		references = []catalog.Reference{{Gone: true, Referrer: &referrers.Referrer{
			Subject: m.Subject, Repository: m.Repository, Descriptor: imagespec.Descriptor{Digest: m.Digest},
		}}}
	}
	return t.options.Catalog.Remove(ctx, m.Repository, m.Digest, references...)
}
