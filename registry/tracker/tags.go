package tracker

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/catalog"
	"tallyman/registry/journal"
)

// Tagged makes a tag point to the manifest to, "" for none, with change, and moves the tag from
// the Image that it pointed to. A manifest that the request has stored under the tag is recorded with it.
func (t *Tracker) Tagged(ctx context.Context, repo distribution.Repository, tag string, to digest.Digest, service distribution.TagService, change func() error) error {
	ctx = withPusher(ctx)
	m := journal.Entry{Repository: repo.Named().Name(), Tag: tag}
	end, _ := t.underway.begin(ctx, m.Repository)
	defer end()
	with := storedWith(ctx, m.Repository, tag)
	var before digest.Digest
	changed, changeErr := false, error(nil)
	err := t.options.Catalog.VerifyOutside(context.WithoutCancel(ctx), func(ctx context.Context) error {
		if changed { // signatures were verified, while the registry may have changed
			return t.moveTagAgain(ctx, repo, m, service, before)
		}
		if isUntagging(ctx, m.Repository, tag) { // to is "", and that is recorded
			changeErr = change()
			return changeErr
		}
		var locks *held
		if with == nil {
			locks = t.lock(ctx, m)
			defer locks.unlock()
		} else {
			locks = with.locks // it has both
		}
		var beforeErr error
		before, beforeErr = pointsTo(ctx, service, tag)
		if changeErr = change(); changeErr != nil {
			return changeErr
		}
		changed = true
		ctx, cancel := detached(ctx)
		defer cancel()
		if beforeErr != nil || !locks.alone { // then some Image may carry the tag that is not known here
			t.requeue(ctx, m)
		}
		if with == nil {
			return t.moveTag(locks.last(ctx), repo, tag, to, before)
		}
		defer locks.unlock()
		requestOf(ctx).stored = nil
		m.Digest = with.entry.Digest
		return t.recordPush(locks.last(ctx), repo, &m, with.push, locks.alone, before)
	})
	if changeErr != nil {
		return changeErr
	}
	return t.handleFailure(ctx, m, err)
}

// moveTagAgain moves a tag by the present state of the registry, with the manifest that was stored under it.
func (t *Tracker) moveTagAgain(ctx context.Context, repo distribution.Repository, m journal.Entry, service distribution.TagService, from digest.Digest) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	if m.Digest != "" {
		recorded, err := t.recordAgain(ctx, repo, m, service, from)
		if recorded || err != nil {
			return err
		}
		if err := t.syncManifest(ctx, repo, m.OfManifest()); err != nil {
			return err
		}
	}
	locks := t.lock(ctx, m.OfTag())
	defer locks.unlock()
	if !locks.alone {
		t.requeue(ctx, m.OfTag())
	}
	to, err := pointsTo(ctx, service, m.Tag)
	if err != nil {
		return err
	}
	return t.moveTag(locks.last(ctx), repo, m.Tag, to, from)
}

// recordAgain records a manifest with its tag. It returns false if the registry does not have the
// two any more as they were stored.
func (t *Tracker) recordAgain(ctx context.Context, repo distribution.Repository, m journal.Entry, service distribution.TagService, from digest.Digest) (recorded bool, err error) {
	locks := t.lock(ctx, m)
	defer locks.unlock()
	if !locks.alone {
		return false, errBusy
	}
	to, err := pointsTo(ctx, service, m.Tag)
	if err != nil || to != m.Digest {
		return false, err
	}
	parsed, err := t.readManifest(ctx, repo, m.Digest)
	if err != nil || parsed == nil {
		return false, err
	}
	return true, t.record(ctx, repo, m, parsed, false, from)
}

// moveTag takes a tag off the Image from, and puts it on to.
func (t *Tracker) moveTag(ctx context.Context, repo distribution.Repository, tag string, to, from digest.Digest) error {
	references, err := t.tagReferences(ctx, repo, tag, to, nil, blobReader(ctx, repo))
	if err != nil {
		return err
	}
	err = t.options.Catalog.MoveTag(ctx, catalog.Move{
		Repository: repo.Named().Name(), Tag: tag, To: to, From: []digest.Digest{from}, Host: t.host(ctx), References: references,
	})
	if apierrors.IsNotFound(err) {
		if m, readErr := t.readManifest(ctx, repo, to); readErr == nil && m != nil && !m.HasImage() {
			return nil
		}
	}
	return err
}

// syncTag reads the tag and puts it on the Image it points to, and on no other. It records that
// Image first if there is none.
func (t *Tracker) syncTag(ctx context.Context, repo distribution.Repository, m journal.Entry, holders imagesByTag) error {
	to, err := t.syncTagOnce(ctx, repo, m, holders)
	if !apierrors.IsNotFound(err) {
		return err
	}
	// The lock of a manifest comes before that of a tag, so this takes place between two tries.
	manifest := journal.Entry{Repository: m.Repository, Digest: to, Host: m.Host}
	err = t.syncManifest(ctx, repo, manifest)
	if isContentError(err) { // its tags have no Image either
		t.setAside(ctx, manifest, err)
		return nil
	}
	if err != nil {
		return err
	}
	if _, err = t.syncTagOnce(ctx, repo, m, holders); apierrors.IsNotFound(err) {
		return nil // a tag that points to no manifest
	}
	return err
}

// syncTagOnce returns the manifest that the tag points to. It fails with NotFound if there is no
// Image of it.
func (t *Tracker) syncTagOnce(ctx context.Context, repo distribution.Repository, m journal.Entry, holders imagesByTag) (to digest.Digest, err error) {
	locks := t.lock(ctx, m)
	defer locks.unlock()
	if !locks.alone {
		return "", errBusy
	}
	current, err := repo.Tags(ctx).Get(ctx, m.Tag)
	var unknown distribution.ErrTagUnknown
	if err != nil && !errors.As(err, &unknown) {
		return "", err
	}
	if current.Digest, err = t.ifHeld(ctx, repo, current.Digest); err != nil {
		return "", err
	}
	references, err := t.tagReferences(ctx, repo, m.Tag, current.Digest, nil, blobReader(ctx, repo))
	if err != nil {
		return "", err
	}
	all, err := holders()
	if err != nil {
		return "", err
	}
	return current.Digest, t.options.Catalog.MoveTag(ctx, catalog.Move{
		Repository: m.Repository, Tag: m.Tag, To: current.Digest, From: all[m.Repository+":"+m.Tag], Host: cmp.Or(t.options.Host, m.Host, t.options.DefaultHost),
		References: references,
	})
}

// ifHeld returns the manifest called name if the repository holds it, else "": a tag that points to
// nothing counts as none.
func (t *Tracker) ifHeld(ctx context.Context, repo distribution.Repository, name digest.Digest) (digest.Digest, error) {
	if name == "" {
		return "", nil
	}
	service, err := repo.Manifests(ctx)
	if err != nil {
		return "", err
	}
	if held, err := service.Exists(ctx, name); err != nil || !held {
		return "", err
	}
	return name, nil
}

// imagesByTag returns the manifests whose Images carry each tag (repository:tag), unless everything
// has records, which say it. It reads all Images, so one is made for a round of entries or a
// comparison, and only if the round has a tag. It may be older than the round: a process that moves
// a tag takes it off its former Image, or leaves an entry for the next round.
type imagesByTag func() (map[string][]digest.Digest, error)

func (t *Tracker) imagesByTag(ctx context.Context) imagesByTag {
	reading := newGate()
	var all map[string][]digest.Digest
	return func() (_ map[string][]digest.Digest, err error) {
		defer reading.lock()()
		if all != nil {
			return all, nil
		}
		recorded, err := t.Recorded(ctx)
		if err != nil {
			return nil, err
		}
		if recorded {
			all = map[string][]digest.Digest{}
			return all, nil
		}
		all, err = t.options.Catalog.ImagesByTag(ctx)
		return all, err
	}
}

// pointsTo returns the manifest that a tag points to, "" if there is no such tag.
// A read fails while another process is writing the tag, so it is tried again.
func pointsTo(ctx context.Context, service distribution.TagService, tag string) (digest.Digest, error) {
	const tries = 5
	for i := 1; ; i++ {
		descriptor, err := service.Get(ctx, tag)
		var unknown distribution.ErrTagUnknown
		if errors.As(err, &unknown) {
			return "", nil
		}
		if err == nil || i == tries {
			return descriptor.Digest, err
		}
		pause(ctx, 10*time.Millisecond)
	}
}
