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
	first := true
	return c.images.Together(ctx, func(ctx context.Context) error {
		if first {
			ctx, first = withoutSignatures(ctx), false
		}
		return fn(ctx, func(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error {
			err := c.update(ctx, name, create, change)
			if apierrors.IsInternalError(err) || errors.Is(err, storage.ErrCorrupt) {
				return &corruptError{name, err}
			}
			return err
		})
	})
}

func (c *Catalog) bounded(ctx context.Context) context.Context {
	return rest.WithSignatureBounds(ctx, rules.SignatureBounds{Count: c.signatures.Limits.PerImage, Bytes: maxSignatureBytes})
}

// update applies change to the Image called name. Its signatures are brought up to date if it is new,
// if the repositories that hold it become others, or if change is nil; otherwise they are left to those
// who change them.
func (c *Catalog) update(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error {
	return c.images.Change(ctx, name.String(), create, func(ctx context.Context, image *imagev1.Image) error {
		if change == nil { // because signatures have changed, so there may be some
			return c.mergeSignatures(ctx, image, true)
		}
		existed, before := image.Name != "", rules.Repositories(image)
		if err := change(image); err != nil {
			return err
		}
		if existed && slices.Equal(before, rules.Repositories(image)) {
			return nil
		}
		return c.mergeSignatures(ctx, image, false)
	})
}
