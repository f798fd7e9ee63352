package registry

import (
	"context"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/opencontainers/go-digest"
)

// GCOptions are those of distribution's garbage-collect.
type GCOptions = storage.GCOpts

// GarbageCollect runs distribution's garbage collection, and leaves a pending
// marker for each manifest that it removed from a repository, for which a
// running server, or ReplayPending, takes the repository off the Image. It returns how
// many that are.
func GarbageCollect(ctx context.Context, c *configuration.Configuration, o GCOptions, r *Recorder) (removed int, err error) {
	if err := openStorage(ctx, c, r); err != nil {
		return 0, err
	}
	namespace := r.inner
	tracked := o.RemoveUntagged && !o.DryRun // otherwise only blobs go
	var before map[marker]bool
	if tracked {
		if before, err = heldManifests(ctx, namespace); err != nil {
			return 0, err
		}
	}
	if err := storage.MarkAndSweep(ctx, r.pending.driver, namespace, o); err != nil {
		return 0, fmt.Errorf("garbage collect: %w", err)
	}
	if !tracked {
		return 0, nil
	}
	after, err := heldManifests(ctx, namespace)
	if err != nil {
		return 0, err
	}
	for m := range before {
		if after[m] {
			continue
		}
		removed++
		if _, err := r.pending.add(ctx, m); err != nil {
			return removed, fmt.Errorf("note the removal of %s@%s: %w", m.Repository, m.Digest, err)
		}
	}
	return removed, nil
}

// ReplayPending handles the pending markers once, in a process that serves
// nothing, and returns how many are left.
func ReplayPending(ctx context.Context, c *configuration.Configuration, r *Recorder) (left int, err error) {
	if err := openStorage(ctx, c, r); err != nil {
		return 0, err
	}
	return r.replay(ctx), nil
}

// openStorage gives r the registry's storage, without the middleware.
func openStorage(ctx context.Context, c *configuration.Configuration, r *Recorder) error {
	driver, err := factory.Create(ctx, c.Storage.Type(), c.Storage.Parameters())
	if err != nil {
		return fmt.Errorf("construct the %s driver: %w", c.Storage.Type(), err)
	}
	namespace, err := storage.NewRegistry(ctx, driver)
	if err != nil {
		return fmt.Errorf("construct the registry: %w", err)
	}
	r.attach(namespace, driver)
	return nil
}

// heldManifests lists which repository holds which manifest.
func heldManifests(ctx context.Context, namespace distribution.Namespace) (map[marker]bool, error) {
	held := map[marker]bool{}
	err := eachRepository(ctx, namespace, func(name string) error {
		repo, err := openRepository(ctx, namespace, name)
		if err != nil {
			return err
		}
		return eachManifest(ctx, repo, func(d digest.Digest) error {
			held[marker{Repository: name, Digest: d}] = true
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list the manifests: %w", err)
	}
	return held, nil
}
