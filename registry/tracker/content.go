package tracker

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"tallyman/internal/crash"
	"tallyman/registry/journal"
	"tallyman/registry/paths"
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

// readVerified reads a blob as readBlob does, in one call, and in none if it was pushed lately:
// distribution has verified a moment ago that the repository has it.
func (t *Tracker) readVerified(ctx context.Context, name digest.Digest, most int64) ([]byte, error) {
	if content := t.configs.Get(name); content != nil {
		return content, nil
	}
	reader, err := t.driver.Reader(ctx, paths.Blob(name), 0)
	if err != nil {
		return nil, journal.IgnoreMissing(err)
	}
	defer func() { _ = reader.Close() }()
	content, err := io.ReadAll(io.LimitReader(reader, most+1))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", name, err)
	}
	if int64(len(content)) > most {
		return nil, nil
	}
	return content, nil
}

// readManifest reads a manifest; nil if it is not there.
func (t *Tracker) readManifest(ctx context.Context, repo distribution.Repository, name digest.Digest) (*manifest.Manifest, error) {
	service, err := repo.Manifests(ctx)
	if err != nil {
		return nil, err
	}
	return ReadManifest(ctx, t.inner, service, name)
}

// ReadManifest reads a manifest of the registry n; nil if it is not there. Its error is permanent
// for a manifest that nobody can read.
func ReadManifest(ctx context.Context, n distribution.Namespace, service distribution.ManifestService, name digest.Digest) (*manifest.Manifest, error) {
	mediaType, payload, err := readPayload(ctx, service, name)
	if IsManifestUnknown(err) {
		return nil, nil
	}
	if err != nil {
		var blobErr error
		if payload, blobErr = readStored(ctx, n, service, name); blobErr != nil {
			return nil, errors.Join(err, blobErr)
		}
	}
	m, err := manifest.Parse(mediaType, payload)
	if err != nil {
		return nil, permanentError{err}
	}
	return m, nil
}

// readStored reads the bytes of a manifest that the repository holds and distribution cannot read: it
// does not know the formats of older registries, and panics on some manifests that it has accepted.
func readStored(ctx context.Context, n distribution.Namespace, service distribution.ManifestService, name digest.Digest) ([]byte, error) {
	held, err := service.Exists(ctx, name)
	if err != nil {
		return nil, err
	}
	blobs, ok := n.Blobs().(distribution.BlobProvider)
	if !held || !ok {
		return nil, distribution.ErrBlobUnknown
	}
	return blobs.Get(ctx, name)
}

func readPayload(ctx context.Context, service distribution.ManifestService, name digest.Digest) (mediaType string, payload []byte, err error) {
	err = crash.Guard("manifest read", func() error {
		stored, err := service.Get(ctx, name)
		if err == nil {
			mediaType, payload, err = stored.Payload()
		}
		return err
	})
	return mediaType, payload, err
}

// IsManifestUnknown reports whether an error of distribution says that there is no such manifest.
func IsManifestUnknown(err error) bool {
	var revision distribution.ErrManifestUnknownRevision
	var unknown distribution.ErrManifestUnknown
	return errors.As(err, &revision) || errors.As(err, &unknown) || errors.Is(err, distribution.ErrBlobUnknown)
}

// OpenRepository opens the repository called name.
func OpenRepository(ctx context.Context, namespace distribution.Namespace, name string) (distribution.Repository, error) {
	named, err := reference.WithName(name)
	if err != nil {
		return nil, fmt.Errorf("repository %q: %w", name, err)
	}
	return namespace.Repository(ctx, named)
}

// EachRepository calls fn with the name of every repository.
func EachRepository(ctx context.Context, namespace distribution.Namespace, fn func(name string) error) error {
	enumerator, ok := namespace.(distribution.RepositoryEnumerator)
	if !ok {
		return fmt.Errorf("registry %T cannot be enumerated", namespace)
	}
	return journal.IgnoreMissing(enumerator.Enumerate(ctx, fn))
}

// EachManifest calls fn with every manifest that repo holds.
func EachManifest(ctx context.Context, repo distribution.Repository, fn func(digest.Digest) error) error {
	service, err := repo.Manifests(ctx)
	if err != nil {
		return err
	}
	enumerator, ok := service.(distribution.ManifestEnumerator)
	if !ok {
		return fmt.Errorf("the manifests of %s cannot be enumerated", repo.Named())
	}
	return journal.IgnoreMissing(enumerator.Enumerate(ctx, fn))
}
