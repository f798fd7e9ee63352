// Package prune deletes blobs of the registry's storage that no repository has, while the registry is served.
//
// # Guarantees
//
// A manifest that the registry takes has all of its blobs, also if it comes while they are deleted. A blob is put aside
// first, where distribution does not find it, and links to it are looked for then, and once more a minute later: one
// that was made meanwhile brings the blob back. With a link that is made too late, distribution refuses the manifest,
// and its client pushes the blob again. A process that ends in between leaves the blob aside, and Recover of the next
// one decides about it.
//
// # Caveats
//
// A cache of blobs in the memory of a process does not hear of deletions: distribution would take a manifest for
// one that is there already. Delete is not for registries that have one.
package prune

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"

	"tallyman/internal/crash"
	"tallyman/registry/journal"
	"tallyman/registry/paths"
)

// grace is how long a blob is aside before it is deleted: far longer than distribution needs from its look for a
// blob to its link to it.
const grace = time.Minute

// ErrUnknown is the error for a blob that is not there.
var ErrUnknown = errors.New("there is no such blob")

// InUseError is the error for a blob that a repository has.
type InUseError struct{ Repository string }

// Error implements error.
func (e *InUseError) Error() string {
	return fmt.Sprintf("repository %s has a link to it", e.Repository)
}

// aside has the blobs that were put aside, by algorithm and digest.
const aside = journal.Root + "/pruned"

func asidePath(d digest.Digest) string {
	return path.Join(aside, d.Algorithm().String(), fmt.Sprintf("%s.%d", d.Encoded(), time.Now().UnixNano()))
}

// Options configures New.
type Options struct {
	// Driver is the registry's storage. Required.
	Driver driver.StorageDriver
	// Forget, if set, deletes a blob from the cache that all processes share.
	Forget func(context.Context, digest.Digest) error
}

// Pruner deletes blobs. Create it with New.
type Pruner struct {
	driver driver.StorageDriver
	forget func(context.Context, digest.Digest) error
}

// New returns a Pruner of a storage.
func New(o Options) *Pruner { return &Pruner{o.Driver, o.Forget} }

// Delete deletes a blob that no repository has, and returns its size in bytes. Its room is free a minute later. It
// looks at each repository twice. It fails with ErrUnknown, an InUseError, or an error of the storage or of the cache.
// Then the blob stays.
func (p *Pruner) Delete(ctx context.Context, d digest.Digest) (size int64, err error) {
	info, err := p.driver.Stat(ctx, paths.Blob(d))
	if isMissing(err) {
		return 0, ErrUnknown
	}
	if err == nil {
		err = p.unused(ctx, d)
	}
	if err != nil {
		return 0, err
	}
	ctx = context.WithoutCancel(ctx) // this is not left half done
	file := asidePath(d)
	if err := p.driver.Move(ctx, paths.Blob(d), file); err != nil {
		if isMissing(err) {
			return 0, ErrUnknown // another request has deleted it
		}
		return 0, err
	}
	if p.forget != nil {
		err = p.forget(ctx, d)
	}
	if err == nil {
		err = p.unused(ctx, d)
	}
	if err != nil {
		return 0, errors.Join(err, p.back(ctx, file, d))
	}
	p.later(ctx, file, d)
	return info.Size(), nil
}

// back brings a blob back.
func (p *Pruner) back(ctx context.Context, file string, d digest.Digest) error {
	_, err := p.driver.Stat(ctx, paths.Blob(d))
	switch {
	case err == nil: // it was pushed again
		err = p.driver.Delete(ctx, file)
	case isMissing(err):
		err = p.driver.Move(ctx, file, paths.Blob(d))
	}
	if err = journal.IgnoreMissing(err); err != nil {
		return fmt.Errorf("blob %s stays at %s until the next start: %w", d, file, err)
	}
	return nil
}

// later deletes a blob that was put aside, or brings it back, after a while.
func (p *Pruner) later(ctx context.Context, file string, d digest.Digest) {
	time.AfterFunc(grace, func() {
		err := crash.Guard("prune", func() error {
			_, err := p.settle(ctx, file, d, true)
			return err
		})
		if err != nil && ctx.Err() == nil {
			slog.Warn("blob neither deleted nor brought back; trying again", "digest", d.String(), "err", err)
			p.later(ctx, file, d)
		}
	})
}

// settle brings a blob back that a repository has, and deletes another one if remove is set. It reports whether the
// blob is aside no longer.
func (p *Pruner) settle(ctx context.Context, file string, d digest.Digest, remove bool) (settled bool, err error) {
	err = p.unused(ctx, d)
	inUse := (*InUseError)(nil)
	switch {
	case errors.As(err, &inUse):
		slog.Info("blob brought back", "digest", d.String(), "repository", inUse.Repository)
		return true, p.back(ctx, file, d)
	case err == nil && remove:
		return true, journal.IgnoreMissing(p.driver.Delete(ctx, file))
	}
	return false, err
}

// Recover decides about blobs that a process has left aside: it brings back those that a repository has, and deletes
// the others a minute later, unless ctx ends before. It may run beside Delete, in any process.
func (p *Pruner) Recover(ctx context.Context) error {
	algorithms, err := p.driver.List(ctx, aside)
	if err != nil {
		return journal.IgnoreMissing(err)
	}
	for _, algorithm := range algorithms {
		files, err := p.driver.List(ctx, algorithm)
		if err := journal.IgnoreMissing(err); err != nil {
			return err
		}
		for _, file := range files {
			encoded, _, _ := strings.Cut(path.Base(file), ".")
			d, err := digest.Parse(path.Base(algorithm) + ":" + encoded)
			if err != nil {
				slog.Warn("file that is no blob among those put aside", "path", file)
				continue
			}
			settled, err := p.settle(ctx, file, d, false)
			if err != nil {
				return err
			}
			if !settled {
				p.later(ctx, file, d)
			}
		}
	}
	return nil
}

// errStop ends a walk.
var errStop = errors.New("found")

// unused fails with an InUseError if a repository has a blob, as a layer, a configuration or a manifest.
func (p *Pruner) unused(ctx context.Context, d digest.Digest) error {
	found := ""
	err := p.driver.Walk(ctx, paths.Repositories, func(file driver.FileInfo) error {
		directory, name := path.Split(file.Path())
		if !file.IsDir() || !strings.HasPrefix(name, "_") { // no component of a repository begins so
			return nil
		}
		repository := strings.TrimPrefix(path.Clean(directory), paths.Repositories+"/")
		link := ""
		switch name {
		case paths.Layers:
			link = paths.LayerLink(repository, d)
		case paths.Manifests:
			link = paths.RevisionLink(repository, d)
		default:
			return driver.ErrSkipDir
		}
		_, err := p.driver.Stat(ctx, link)
		if isMissing(err) {
			return driver.ErrSkipDir
		}
		if err == nil {
			found, err = repository, errStop
		}
		return err
	})
	if found != "" {
		return &InUseError{found}
	}
	return journal.IgnoreMissing(err)
}

func isMissing(err error) bool { return err != nil && journal.IgnoreMissing(err) == nil }
