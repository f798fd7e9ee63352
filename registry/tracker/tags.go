package tracker

import (
	"context"
	"errors"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Tagged moves or removes a tag with change, and with it the tag on the Images
// it pointed and points to.
func (t *Tracker) Tagged(ctx context.Context, repo distribution.Repository, tag string, service distribution.TagService, change func() error) error {
	m := Entry{Repository: repo.Named().Name(), Tag: tag}
	var before digest.Digest
	changed, changeErr := false, error(nil)
	err := t.options.Catalog.VerifyOutside(context.WithoutCancel(ctx), func(ctx context.Context) error {
		unlock, alone := t.lock(ctx, m)
		defer unlock()
		beforeErr := error(nil)
		if !changed { // otherwise signatures were verified since
			before, beforeErr = pointsTo(ctx, service, tag)
			if changeErr = change(); changeErr != nil {
				return changeErr
			}
			changed = true
		}
		ctx, cancel := detached(ctx)
		defer cancel()
		if beforeErr != nil || !alone { // then some Image may carry the tag that is not known here
			t.requeue(ctx, m)
		}
		return t.moveTag(ctx, repo, tag, service, before)
	})
	if changeErr != nil {
		return changeErr
	}
	return t.handleFailure(ctx, m, err)
}

// moveTag takes a tag off the Image from, and puts it on the one that it points to
// now.
func (t *Tracker) moveTag(ctx context.Context, repo distribution.Repository, tag string, service distribution.TagService, from digest.Digest) error {
	repository := repo.Named().Name()
	to, err := pointsTo(ctx, service, tag)
	if err != nil {
		return err
	}
	if err := t.recordTagReferrer(ctx, repo, tag, to); err != nil {
		return err
	}
	if from != "" && from != to {
		if err := t.options.Catalog.SetTag(ctx, repository, tag, from, false); err != nil {
			return err
		}
	}
	if to == "" {
		return nil
	}
	err = t.options.Catalog.SetTag(ctx, repository, tag, to, true)
	if apierrors.IsNotFound(err) {
		if m, readErr := t.readManifest(ctx, repo, to); readErr == nil && m != nil && !m.HasImage() {
			return nil
		}
	}
	return err
}

// syncTag reads the tag and puts it on the Image it points to, and on no other.
func (t *Tracker) syncTag(ctx context.Context, repo distribution.Repository, m Entry, holders imagesByTag) error {
	unlock, alone := t.lock(ctx, m)
	defer unlock()
	if !alone {
		return errBusy
	}
	current, err := repo.Tags(ctx).Get(ctx, m.Tag)
	var unknown distribution.ErrTagUnknown
	if err != nil && !errors.As(err, &unknown) {
		return err
	}
	if err := t.recordTagReferrer(ctx, repo, m.Tag, current.Digest); err != nil {
		return err
	}
	all, err := holders()
	if err != nil {
		return err
	}
	for _, holder := range all[m.Repository+":"+m.Tag] {
		if holder == current.Digest {
			continue
		}
		if err := t.options.Catalog.SetTag(ctx, m.Repository, m.Tag, holder, false); err != nil {
			return err
		}
	}
	if current.Digest == "" {
		return nil
	}
	return t.pointTag(ctx, repo, m, current.Digest)
}

// pointTag puts the tag on the Image, which it records first if there is none.
func (t *Tracker) pointTag(ctx context.Context, repo distribution.Repository, m Entry, to digest.Digest) error {
	err := t.options.Catalog.SetTag(ctx, m.Repository, m.Tag, to, true)
	if !apierrors.IsNotFound(err) {
		return err
	}
	manifest := Entry{Repository: m.Repository, Digest: to, Host: m.Host}
	err = t.syncManifest(ctx, repo, manifest)
	if isContentError(err) { // its tags have no Image either
		t.setAside(ctx, manifest, err)
		return nil
	}
	if err != nil {
		return err
	}
	err = t.options.Catalog.SetTag(ctx, m.Repository, m.Tag, to, true)
	if apierrors.IsNotFound(err) {
		return nil // a tag that points to no manifest
	}
	return err
}

// imagesByTag returns the manifests whose Images carry each tag (repository:tag). It reads all
// Images, so one is made for a round of entries or a backfill, and only if the round has a
// tag. It may be older than the round: a process that moves a tag takes it off its former
// Image, or leaves an entry for the next round.
type imagesByTag func() (map[string][]digest.Digest, error)

func (t *Tracker) imagesByTag(ctx context.Context) imagesByTag {
	var all map[string][]digest.Digest
	return func() (_ map[string][]digest.Digest, err error) {
		if all == nil { // not yet, or it failed
			all, err = t.options.Catalog.ImagesByTag(ctx)
		}
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
