package tracker

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
)

// references returns what a manifest, and the tag that it is stored with, "" for none, say about other
// manifests. verified says that distribution has just taken the manifest.
func (t *Tracker) references(ctx context.Context, repo distribution.Repository, e journal.Entry, m *manifest.Manifest, verified bool) (all []catalog.Reference, err error) {
	read := blobReader(ctx, repo)
	if verified && !t.options.PullThrough {
		read = func(name digest.Digest) ([]byte, error) { return t.readVerified(ctx, name, signatures.MaxBlob) }
	}
	if m.Subject != "" {
		repository := repo.Named().Name()
		found, err := t.extract(m, read, journal.Entry{Repository: repository, Digest: e.Digest, Subject: m.Subject})
		if err != nil {
			return nil, err
		}
		all = append(all, catalog.Reference{Referrer: &referrers.Referrer{
			Subject: m.Subject, Repository: repository, Descriptor: m.Descriptor(e.Digest), Signatures: found,
		}})
	}
	if e.Tag == "" {
		return all, nil
	}
	ofTag, err := t.tagReferences(ctx, repo, e.Tag, e.Digest, m, read)
	return append(all, ofTag...), err
}

// referencesOf returns the references of references without their content, as far as their keys tell.
func referencesOf(e journal.Entry, m *manifest.Manifest) (all []catalog.Reference) {
	if m != nil && m.Subject != "" {
		all = append(all, catalog.Reference{Referrer: &referrers.Referrer{
			Subject: m.Subject, Repository: e.Repository, Descriptor: imagespec.Descriptor{Digest: e.Digest},
		}})
	}
	subject, refers := signatures.SignatureTag(e.Tag)
	if !refers {
		subject, refers = signatures.ReferrersTag(e.Tag)
	}
	if refers {
		all = append(all, catalog.Reference{Referrer: &referrers.Referrer{Subject: subject, Repository: e.Repository, Tag: e.Tag}})
	}
	return all
}

// blobReader returns a reader of a repository's blobs.
func blobReader(ctx context.Context, repo distribution.Repository) func(digest.Digest) ([]byte, error) {
	return func(name digest.Digest) ([]byte, error) { return readBlob(ctx, repo, name, signatures.MaxBlob) }
}

// extract reads the signatures that a manifest carries, with read, which returns nil for a blob that is
// not there. It requeues again for blobs that a pull-through cache has not fetched yet.
func (t *Tracker) extract(m *manifest.Manifest, read func(digest.Digest) ([]byte, error), again journal.Entry) ([]signatures.Signature, error) {
	var missing []digest.Digest
	found, err := signatures.Extract(m, t.options.SignatureLimits, func(d imagespec.Descriptor) ([]byte, error) {
		content, err := read(d.Digest)
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

// tagReferences returns the reference that a tag makes to the digest in its name, if it is
// one of the two kinds that do: cosign's sha256-<hex>.sig, and sha256-<hex>, an index of
// referrers that clients keep where there is no referrers API. to is the target of the tag, ""
// for none, and m its manifest, which is read if it is nil. read is that of extract.
func (t *Tracker) tagReferences(ctx context.Context, repo distribution.Repository, tag string, to digest.Digest, m *manifest.Manifest, read func(digest.Digest) ([]byte, error)) ([]catalog.Reference, error) {
	subject, signs := signatures.SignatureTag(tag)
	if !signs {
		var lists bool
		if subject, lists = signatures.ReferrersTag(tag); !lists {
			return nil, nil
		}
	}
	referrer := &referrers.Referrer{Subject: subject, Repository: repo.Named().Name(), Tag: tag}
	gone := []catalog.Reference{{Referrer: referrer, Gone: true}}
	if to == "" {
		return gone, nil
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
		return nil, err
	}
	switch {
	case m == nil:
		return gone, nil
	case signs && m.Kind == manifest.Cosign:
		if referrer.Signatures, err = t.extract(m, read, journal.Entry{Repository: repo.Named().Name(), Tag: tag}); err != nil {
			return nil, err
		}
	case !signs && m.IsIndex(): // an image may be under that tag as well: cosign copy
		referrer.Manifests = m.Manifests
	default:
		return gone, nil
	}
	referrer.Descriptor = m.Descriptor(to)
	return []catalog.Reference{{Referrer: referrer}}, nil
}
