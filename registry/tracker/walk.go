package tracker

import (
	"context"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

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
	return ignoreMissing(enumerator.Enumerate(ctx, fn))
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
	return ignoreMissing(enumerator.Enumerate(ctx, fn))
}
