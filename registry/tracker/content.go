package tracker

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"

	"tallyman/internal/crash"
	"tallyman/signatures/manifest"
)

// maxConfig is the largest config that is read; a larger one counts as absent.
const maxConfig = 4 << 20

// readBlob returns nil for a blob that is not there or larger than most.
func readBlob(ctx context.Context, repo distribution.Repository, name digest.Digest, most int64) ([]byte, error) {
	store := repo.Blobs(ctx)
	stat, err := store.Stat(ctx, name)
	if errors.Is(err, distribution.ErrBlobUnknown) || (err == nil && stat.Size > most) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", name, err)
	}
	content, err := store.Get(ctx, name)
	if errors.Is(err, distribution.ErrBlobUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", name, err)
	}
	if content == nil {
		content = []byte{}
	}
	return content, nil
}

// readManifest reads a manifest; nil if it is not there.
func readManifest(ctx context.Context, repo distribution.Repository, name digest.Digest) (*manifest.Manifest, error) {
	service, err := repo.Manifests(ctx)
	if err != nil {
		return nil, err
	}
	return ReadManifest(ctx, service, name)
}

// ReadManifest reads a manifest; nil if it is not there. Its error is permanent for a manifest
// that distribution cannot read: its manifest store panics on some that it has accepted.
func ReadManifest(ctx context.Context, service distribution.ManifestService, name digest.Digest) (*manifest.Manifest, error) {
	var stored distribution.Manifest
	err := crash.Guard("manifest read", func() (err error) {
		stored, err = service.Get(ctx, name)
		return err
	})
	if IsManifestUnknown(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	mediaType, payload, err := stored.Payload()
	if err != nil {
		return nil, permanentError{err}
	}
	m, err := manifest.Parse(mediaType, payload)
	if err != nil {
		return nil, permanentError{err}
	}
	return m, nil
}

// IsManifestUnknown reports whether an error of distribution says that there is no such manifest.
func IsManifestUnknown(err error) bool {
	var revision distribution.ErrManifestUnknownRevision
	var unknown distribution.ErrManifestUnknown
	return errors.As(err, &revision) || errors.As(err, &unknown) || errors.Is(err, distribution.ErrBlobUnknown)
}
