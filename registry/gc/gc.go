// Package gc is the registry's garbage collection, which keeps signatures of what stays, and
// keeps Images in step.
package gc

import (
	"context"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/opencontainers/go-digest"

	"tallyman/registry/journal"
	"tallyman/registry/tracker"
)

// Options are those of distribution's garbage-collect, and more.
type Options struct {
	storage.GCOpts
	// Progress, if set, is called with the number of repositories that were read, and of those that are to be. One
	// counts as often as it is read.
	Progress func(done, total int64)
}

// Collect runs distribution's garbage collection, but keeps manifests without a
// tag that refer to one that stays, such as its signatures. It leaves a journal entry
// for each manifest that is removed from a repository, for which a running server, or
// Drain, takes the repository off the Image. It returns how many that are.
func Collect(ctx context.Context, c *configuration.Configuration, o Options) (removed int, err error) {
	namespace, d, err := open(ctx, c)
	if err != nil {
		return 0, err
	}
	if namespace, err = showing(ctx, namespace, o); err != nil {
		return 0, err
	}
	if !o.RemoveUntagged { // only blobs go
		return 0, sweep(ctx, d, namespace, o)
	}
	before, referrers, err := findReferrers(ctx, namespace)
	if err != nil {
		return 0, err
	}
	if err := sweep(ctx, d, referrers.keep(namespace), o); err != nil || o.DryRun {
		return 0, err
	}
	after, err := heldManifests(ctx, namespace)
	if err != nil {
		return 0, err
	}
	entries := journal.New(d)
	for m := range before {
		if after[journal.Entry{Repository: m.Repository, Digest: m.Digest}] {
			continue
		}
		removed++
		if _, err := entries.Add(ctx, m); err != nil {
			return removed, fmt.Errorf("note the removal of %s@%s: %w", m.Repository, m.Digest, err)
		}
	}
	return removed, nil
}

// showing returns a namespace that calls o.Progress with each repository that was enumerated.
func showing(ctx context.Context, namespace distribution.Namespace, o Options) (distribution.Namespace, error) {
	enumerator, ok := namespace.(distribution.RepositoryEnumerator)
	if o.Progress == nil || !ok {
		return namespace, nil
	}
	passes := int64(1)
	if o.RemoveUntagged { // for the referrers, and for what is left
		if passes = 3; o.DryRun {
			passes = 2
		}
	}
	repositories := int64(0)
	err := tracker.EachRepository(ctx, namespace, func(string) error {
		repositories++
		return nil
	})
	return struct {
		distribution.Namespace
		distribution.RepositoryEnumerator
	}{namespace, &countingEnumerator{RepositoryEnumerator: enumerator, total: passes * repositories, progress: o.Progress}}, err
}

type countingEnumerator struct {
	distribution.RepositoryEnumerator
	done, total int64
	progress    func(done, total int64)
}

// Enumerate implements distribution.RepositoryEnumerator.
func (e *countingEnumerator) Enumerate(ctx context.Context, fn func(string) error) error {
	return e.RepositoryEnumerator.Enumerate(ctx, func(name string) error {
		err := fn(name)
		e.done++
		e.progress(e.done, e.total)
		return err
	})
}

func sweep(ctx context.Context, d driver.StorageDriver, namespace distribution.Namespace, o Options) error {
	if err := storage.MarkAndSweep(ctx, d, namespace, o.GCOpts); err != nil {
		return fmt.Errorf("garbage collect: %w", err)
	}
	return nil
}

// Drain handles the journal entries once, in a process that serves nothing, and returns how
// many are left.
func Drain(ctx context.Context, c *configuration.Configuration, o tracker.Options) (left int, err error) {
	t, err := Tracker(ctx, c, o)
	if err != nil {
		return 0, err
	}
	return t.Drain(ctx), nil
}

// Tracker returns the Tracker of a registry that is not served by this process.
func Tracker(ctx context.Context, c *configuration.Configuration, o tracker.Options) (*tracker.Tracker, error) {
	namespace, d, err := open(ctx, c)
	if err != nil {
		return nil, err
	}
	return tracker.New(namespace, d, o), nil
}

// open opens the registry's storage, without the middleware.
func open(ctx context.Context, c *configuration.Configuration) (distribution.Namespace, driver.StorageDriver, error) {
	d, err := factory.Create(ctx, c.Storage.Type(), c.Storage.Parameters())
	if err != nil {
		return nil, nil, fmt.Errorf("construct the %s driver: %w", c.Storage.Type(), err)
	}
	namespace, err := storage.NewRegistry(ctx, d)
	if err != nil {
		return nil, nil, fmt.Errorf("construct the registry: %w", err)
	}
	return namespace, d, nil
}

// heldManifests lists which repository holds which manifest.
func heldManifests(ctx context.Context, namespace distribution.Namespace) (map[journal.Entry]bool, error) {
	held := map[journal.Entry]bool{}
	err := tracker.EachRepository(ctx, namespace, func(name string) error {
		repo, err := tracker.OpenRepository(ctx, namespace, name)
		if err != nil {
			return err
		}
		return tracker.EachManifest(ctx, repo, func(d digest.Digest) error {
			held[journal.Entry{Repository: name, Digest: d}] = true
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list the manifests: %w", err)
	}
	return held, nil
}
