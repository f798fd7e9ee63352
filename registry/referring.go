package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi"
	"tallyman/internal/crash"
	"tallyman/signatures"
)

// recordReferrer stores that a manifest refers to another, with the signatures that it
// carries, and brings those of the other's Image up to date.
func (r *Recorder) recordReferrer(ctx context.Context, repo distribution.Repository, name digest.Digest, payload []byte, m *signatures.Manifest) error {
	found, err := r.extract(ctx, repo, m, entry{Repository: repo.Named().Name(), Digest: name, Subject: m.Subject})
	if err != nil {
		return err
	}
	_, err = r.options.Writer.SetReferrer(ctx, &imageapi.Referrer{
		Subject: m.Subject, Repository: repo.Named().Name(), Descriptor: descriptorOf(name, payload, m), Signatures: found,
	})
	if err != nil || len(found) == 0 {
		return err
	}
	return r.options.Writer.RefreshSignatures(ctx, m.Subject)
}

// descriptorOf is the manifest's descriptor as the referrers API gives it.
func descriptorOf(name digest.Digest, payload []byte, m *signatures.Manifest) imagespec.Descriptor {
	return imagespec.Descriptor{
		MediaType: m.MediaType, Digest: name, Size: int64(len(payload)), ArtifactType: m.ArtifactType, Annotations: m.Annotations,
	}
}

// extract reads the signatures that a manifest carries. It requeues again for blobs that a
// pull-through cache has not fetched yet.
func (r *Recorder) extract(ctx context.Context, repo distribution.Repository, m *signatures.Manifest, again entry) ([]signatures.Signature, error) {
	var missing []digest.Digest
	found, err := signatures.Extract(m, r.options.SignatureLimits, func(d imagespec.Descriptor) ([]byte, error) {
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
	if r.options.PullThrough {
		for _, blob := range missing {
			r.await(blob, again)
		}
	}
	return found, nil
}

// removeReferrer undoes recordReferrer.
func (r *Recorder) removeReferrer(ctx context.Context, repository string, name, subject digest.Digest) error {
	if subject == "" {
		return nil
	}
	_, err := r.options.Writer.RemoveReferrer(ctx, &imageapi.Referrer{
		Subject: subject, Repository: repository, Descriptor: imagespec.Descriptor{Digest: name},
	})
	if err != nil {
		return err
	}
	return r.options.Writer.RefreshSignatures(ctx, subject)
}

// recordTagReferrer stores the reference that a tag makes to the digest in its name, if it is
// one of the two kinds that do: cosign's sha256-<hex>.sig, and sha256-<hex>, an index of
// referrers that clients keep where there is no referrers API. to is the target of the tag, ""
// for none.
func (r *Recorder) recordTagReferrer(ctx context.Context, repo distribution.Repository, tag string, to digest.Digest) error {
	subject, signs := signatures.SignatureTag(tag)
	if !signs {
		var lists bool
		if subject, lists = signatures.ReferrersTag(tag); !lists {
			return nil
		}
	}
	referrer := &imageapi.Referrer{Subject: subject, Repository: repo.Named().Name(), Tag: tag}
	says := false
	if to != "" {
		manifest, payload, err := readManifest(ctx, repo, to)
		if isPermanent(err) { // a tag on an unreadable manifest says nothing, but is a tag all the same
			log(ctx).Warn("cannot read the manifest of a referrers tag", "repository", referrer.Repository, "tag", tag, "digest", to.String(), "err", err)
			manifest = &signatures.Manifest{}
		} else if err != nil {
			return err
		}
		referrer.Descriptor = descriptorOf(to, payload, manifest)
		switch {
		case signs && manifest.Kind == signatures.KindCosign:
			says = true
			if referrer.Signatures, err = r.extract(ctx, repo, manifest, entry{Repository: repo.Named().Name(), Tag: tag}); err != nil {
				return err
			}
		case !signs && manifest.IsIndex: // an image may be under that tag as well: cosign copy
			says, referrer.Manifests = true, manifest.Manifests
		}
	}
	var err error
	if says {
		_, err = r.options.Writer.SetReferrer(ctx, referrer)
	} else {
		_, err = r.options.Writer.RemoveReferrer(ctx, referrer)
	}
	if err != nil || !signs {
		return err
	}
	return r.options.Writer.RefreshSignatures(ctx, subject)
}

// readManifest reads a manifest; one that is not there is content with nothing in it,
// and has no payload.
func readManifest(ctx context.Context, repo distribution.Repository, name digest.Digest) (*signatures.Manifest, []byte, error) {
	service, err := repo.Manifests(ctx)
	if err != nil {
		return nil, nil, err
	}
	return getManifest(ctx, service, name)
}

// getManifest returns a permanent error for a manifest that distribution cannot read:
// its manifest store panics on some that it has accepted.
func getManifest(ctx context.Context, service distribution.ManifestService, name digest.Digest) (*signatures.Manifest, []byte, error) {
	var manifest distribution.Manifest
	err := crash.Guard("manifest read", func() (err error) {
		manifest, err = service.Get(ctx, name)
		return err
	})
	if isManifestUnknown(err) {
		return &signatures.Manifest{}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	mediaType, payload, err := manifest.Payload()
	if err != nil {
		return nil, nil, permanentError{err}
	}
	return signatures.ParseManifest(mediaType, payload), payload, nil
}
