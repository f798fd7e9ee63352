package tracker

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/referrers"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
)

// recordReferrer stores that a manifest refers to another, with the signatures that it
// carries, and brings those of the other's Image up to date.
func (t *Tracker) recordReferrer(ctx context.Context, repo distribution.Repository, name digest.Digest, m *manifest.Manifest) error {
	found, err := t.extract(ctx, repo, m, journal.Entry{Repository: repo.Named().Name(), Digest: name, Subject: m.Subject})
	if err != nil {
		return err
	}
	return t.options.Catalog.SetReferrer(ctx, &referrers.Referrer{
		Subject: m.Subject, Repository: repo.Named().Name(), Descriptor: m.Descriptor(name), Signatures: found,
	})
}

// extract reads the signatures that a manifest carries. It requeues again for blobs that a
// pull-through cache has not fetched yet.
func (t *Tracker) extract(ctx context.Context, repo distribution.Repository, m *manifest.Manifest, again journal.Entry) ([]signatures.Signature, error) {
	var missing []digest.Digest
	found, err := signatures.Extract(m, t.options.SignatureLimits, func(d imagespec.Descriptor) ([]byte, error) {
		content, err := readBlob(ctx, repo, d.Digest, signatures.MaxBlob)
		if err == nil && content == nil {
			missing = append(missing, d.Digest)
			return nil, signatures.ErrBlobMissing
		}
		return content, err
	})
	if err != nil && !errors.Is(err, signatures.ErrBlobMissing) {
		return nil, fmt.Errorf("read signatures: %w", err)
	}
	if t.options.PullThrough {
		for _, blob := range missing {
			t.await(blob, again)
		}
	}
	return found, nil
}

// removeReferrer undoes recordReferrer.
func (t *Tracker) removeReferrer(ctx context.Context, repository string, name, subject digest.Digest) error {
	if subject == "" {
		return nil
	}
	return t.options.Catalog.RemoveReferrer(ctx, &referrers.Referrer{
		Subject: subject, Repository: repository, Descriptor: imagespec.Descriptor{Digest: name},
	})
}

// subjectOf returns the subject of a manifest that is about to be deleted, "" if it has none.
func (t *Tracker) subjectOf(ctx context.Context, service distribution.ManifestService, m journal.Entry) digest.Digest {
	parsed, err := ReadManifest(ctx, t.inner, service, m.Digest)
	switch {
	case err != nil: // one that cannot be read can be deleted all the same
		subject, storeErr := t.options.Referrers.SubjectOf(ctx, m.Repository, m.Digest)
		logging.For(ctx).Warn("deleted manifest not readable", append(m.Attributes(), "subject", subject.String(), "err", errors.Join(err, storeErr))...)
		return subject
	case parsed != nil:
		return parsed.Subject
	}
	return ""
}

// recordTagReferrer stores the reference that a tag makes to the digest in its name, if it is
// one of the two kinds that do: cosign's sha256-<hex>.sig, and sha256-<hex>, an index of
// referrers that clients keep where there is no referrers API. to is the target of the tag, ""
// for none, and m its manifest, which is read if it is nil.
func (t *Tracker) recordTagReferrer(ctx context.Context, repo distribution.Repository, tag string, to digest.Digest, m *manifest.Manifest) error {
	subject, signs := signatures.SignatureTag(tag)
	if !signs {
		var lists bool
		if subject, lists = signatures.ReferrersTag(tag); !lists {
			return nil
		}
	}
	referrer := &referrers.Referrer{Subject: subject, Repository: repo.Named().Name(), Tag: tag}
	if to == "" {
		return t.options.Catalog.RemoveReferrer(ctx, referrer)
	}
	var err error
	if m == nil {
		m, err = t.readManifest(ctx, repo, to)
	}
	if isPermanent(err) { // a tag on an unreadable manifest says nothing, but is a tag all the same
		logging.For(ctx).Warn("cannot read the manifest of a referrers tag", "repository", referrer.Repository, "tag", tag, "digest", to.String(), "err", err)
		m, err = nil, nil
	}
	if err != nil {
		return err
	}
	switch {
	case m == nil:
		return t.options.Catalog.RemoveReferrer(ctx, referrer)
	case signs && m.Kind == manifest.Cosign:
		if referrer.Signatures, err = t.extract(ctx, repo, m, journal.Entry{Repository: repo.Named().Name(), Tag: tag}); err != nil {
			return err
		}
	case !signs && m.IsIndex(): // an image may be under that tag as well: cosign copy
		referrer.Manifests = m.Manifests
	default:
		return t.options.Catalog.RemoveReferrer(ctx, referrer)
	}
	referrer.Descriptor = m.Descriptor(to)
	return t.options.Catalog.SetReferrer(ctx, referrer)
}
