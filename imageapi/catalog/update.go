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
)

// overwrite is update for callers that derive a missing Image again. It deletes a corrupt
// Image first.
func (c *Catalog) overwrite(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error {
	err := c.update(ctx, name, create, change)
	if !apierrors.IsInternalError(err) {
		return err
	}
	if discarded, discardErr := c.images.DiscardCorrupt(ctx, name.String()); discardErr != nil || !discarded {
		return errors.Join(err, discardErr)
	}
	slog.Warn("corrupt image replaced", "image", name, "err", err)
	return c.update(ctx, name, create, change)
}

// update applies change to the Image called name, and brings its signatures up to
// date, in one atomic step. With create, an Image that does not exist is presented
// empty.
func (c *Catalog) update(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error {
	ctx = rest.WithSignatureBounds(ctx, rules.SignatureBounds{Count: c.signatures.Limits.PerImage, Bytes: maxSignatureBytes})
	signed, changed, err := c.updateOnce(ctx, name, create, change)
	for err == nil && changed {
		// Referrers may have changed between our read and our write, so read them once more. A
		// writer that changes them after this second read refreshes the signatures itself.
		before := signed
		signed, _, err = c.updateOnce(ctx, name, false, func(*imagev1.Image) error { return nil })
		changed = !slices.Equal(before, signed)
	}
	return err
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
