package catalog

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// changer applies a change to the Image called name, as update does, in the commit of together.
type changer func(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error

// corruptError is the error of a change of an Image that cannot be read.
type corruptError struct {
	name digest.Digest
	err  error
}

func (e *corruptError) Error() string { return e.err.Error() }

func (e *corruptError) Unwrap() error { return e.err }

// together makes the changes of fn one commit. It is for callers that derive a missing Image again:
// a corrupt one is deleted first. fn may be called several times.
func (c *Catalog) together(ctx context.Context, fn func(ctx context.Context, change changer) error) error {
	err := c.togetherOnce(ctx, fn)
	var corrupt *corruptError
	if !errors.As(err, &corrupt) {
		return err
	}
	if discarded, discardErr := c.images.DiscardCorrupt(ctx, corrupt.name.String()); discardErr != nil || !discarded {
		return errors.Join(err, discardErr)
	}
	slog.Warn("corrupt image replaced", "image", corrupt.name, "err", err)
	return c.togetherOnce(ctx, fn)
}

func (c *Catalog) togetherOnce(ctx context.Context, fn func(ctx context.Context, change changer) error) error {
	ctx = c.bounded(ctx)
	var again map[digest.Digest][]string // the signatures of Images that got others
	first := true
	err := c.images.Together(ctx, func(ctx context.Context) error {
		again = map[digest.Digest][]string{}
		if first {
			ctx, first = withoutSignatures(ctx), false
		}
		return fn(ctx, func(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error {
			signed, changed, err := c.updateOnce(ctx, name, create, change)
			if apierrors.IsInternalError(err) || errors.Is(err, storage.ErrCorrupt) {
				return &corruptError{name, err}
			}
			if changed {
				again[name] = signed
			}
			return err
		})
	})
	for name, signed := range again {
		if err == nil {
			err = ignoreNotFound(c.settle(ctx, name, signed))
		}
	}
	return err
}

func (c *Catalog) bounded(ctx context.Context) context.Context {
	return rest.WithSignatureBounds(ctx, rules.SignatureBounds{Count: c.signatures.Limits.PerImage, Bytes: maxSignatureBytes})
}

// update applies change to the Image called name, and brings its signatures up to
// date, in one atomic step.
func (c *Catalog) update(ctx context.Context, name digest.Digest, change func(*imagev1.Image) error) error {
	ctx = c.bounded(ctx)
	signed, changed, err := c.updateOnce(ctx, name, false, change)
	if err != nil || !changed {
		return err
	}
	return c.settle(ctx, name, signed)
}

// settle brings the signatures of an Image up to date until those that it found before, signed, are
// found again: referrers may have changed between a read of them and the write. A writer that
// changes them after the last read refreshes the signatures itself.
func (c *Catalog) settle(ctx context.Context, name digest.Digest, signed []string) error {
	for {
		found, _, err := c.updateOnce(ctx, name, false, func(*imagev1.Image) error { return nil })
		if err != nil || slices.Equal(signed, found) {
			return err
		}
		signed = found
	}
}

// updateOnce returns the names of the signatures that it has found, and whether they are others
// than those on the Image before.
func (c *Catalog) updateOnce(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) (signed []string, changed bool, err error) {
	err = c.images.Change(ctx, name.String(), create, func(ctx context.Context, image *imagev1.Image) error {
		err := change(image)
		if err == nil {
			signed, changed, err = c.mergeSignatures(ctx, image)
		}
		return err
	})
	return signed, changed && err == nil, err
}
