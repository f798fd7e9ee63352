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

// GarbageCollect runs distribution's garbage collection, but keeps manifests without a
// tag that refer to one that stays, such as its signatures. It leaves a journal entry
// for each manifest that is removed from a repository, for which a running server, or
// DrainJournal, takes the repository off the Image. It returns how many that are.
func GarbageCollect(ctx context.Context, c *configuration.Configuration, o GCOptions, r *Recorder) (removed int, err error) {
	if err := openStorage(ctx, c, r); err != nil {
		return 0, err
	}
	namespace := r.inner
	if !o.RemoveUntagged { // only blobs go
		return 0, sweep(ctx, r, namespace, o)
	}
	before, referrers, err := findReferrers(ctx, namespace)
	if err != nil {
		return 0, err
	}
	if err := sweep(ctx, r, referrers.keep(namespace), o); err != nil || o.DryRun {
		return 0, err
	}
	after, err := heldManifests(ctx, namespace)
	if err != nil {
		return 0, err
	}
	for m := range before {
		if after[entry{Repository: m.Repository, Digest: m.Digest}] {
			continue
		}
		removed++
		if _, err := r.journal.add(ctx, m); err != nil {
			return removed, fmt.Errorf("note the removal of %s@%s: %w", m.Repository, m.Digest, err)
		}
	}
	return removed, nil
}

func sweep(ctx context.Context, r *Recorder, namespace distribution.Namespace, o GCOptions) error {
	if err := storage.MarkAndSweep(ctx, r.journal.driver, namespace, o); err != nil {
		return fmt.Errorf("garbage collect: %w", err)
	}
	return nil
}

// DrainJournal handles the journal entries once, in a process that serves
// nothing, and returns how many are left.
func DrainJournal(ctx context.Context, c *configuration.Configuration, r *Recorder) (left int, err error) {
	if err := openStorage(ctx, c, r); err != nil {
		return 0, err
	}
	return r.drain(ctx), nil
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
func heldManifests(ctx context.Context, namespace distribution.Namespace) (map[entry]bool, error) {
	held := map[entry]bool{}
	err := eachRepository(ctx, namespace, func(name string) error {
		repo, err := openRepository(ctx, namespace, name)
		if err != nil {
			return err
		}
		return eachManifest(ctx, repo, func(d digest.Digest) error {
			held[entry{Repository: name, Digest: d}] = true
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list the manifests: %w", err)
	}
	return held, nil
}
