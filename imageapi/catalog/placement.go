package catalog

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// Record stores derived, which came from Derive(p): it creates the Image, or updates the
// derived fields and keeps the additions of users. With a tag it is MoveTag, too, in the same
// commit. It fails with ErrTerminating.
func (c *Catalog) Record(ctx context.Context, p Push, derived *imagev1.Image) error {
	terminating := false
	err := c.together(rest.WithAccount(ctx, p.Repository), func(ctx context.Context, change changer) error {
		err := change(ctx, p.Digest, true, func(image *imagev1.Image) error {
			terminating = image.DeletionTimestamp != nil
			if image.Name == "" {
				derived.DeepCopyInto(image)
				image.Annotations[rules.AnnotationOrigin] = rules.OriginRegistry
			} else {
				refresh(image, derived)
			}
			image.Annotations[rules.AnnotationManaged] = "true"
			rules.AddRepository(image, p.Repository)
			if p.Tag != "" {
				rules.SetTag(image, p.Repository, p.Tag, true)
			}
			return nil
		})
		if err != nil || p.Tag == "" {
			return err
		}
		return loseTag(ctx, change, p.Repository, p.Tag, p.Digest, p.From)
	})
	if err == nil && terminating {
		return ErrTerminating
	}
	return err
}

// MoveTag notes that repository's tag points to the manifest to, "" for none, and to none of
// those in from any more. That is one commit, in which watchers see the gain first. If the tag
// points to a manifest of which there is no Image, or which the Image does not say that the
// repository holds, the losses are noted and NotFound is returned. It fails with ErrTerminating.
func (c *Catalog) MoveTag(ctx context.Context, repository, tag string, to digest.Digest, from ...digest.Digest) error {
	if to == "" {
		ctx = storage.WithRemoval(ctx)
	}
	terminating, missing := false, error(nil)
	err := c.together(rest.WithAccount(ctx, repository), func(ctx context.Context, change changer) error {
		terminating, missing = false, nil
		if to != "" {
			err := change(ctx, to, false, func(image *imagev1.Image) error {
				terminating = image.DeletionTimestamp != nil
				if !slices.Contains(rules.Repositories(image), repository) {
					return apierrors.NewNotFound(imageapi.Images, to.String())
				}
				rules.SetTag(image, repository, tag, true)
				return nil
			})
			if missing = err; err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		return loseTag(ctx, change, repository, tag, to, from)
	})
	switch {
	case err != nil:
		return err
	case missing == nil && terminating:
		return ErrTerminating
	}
	return missing
}

// loseTag takes a tag that points to the manifest to off the Images of others.
func loseTag(ctx context.Context, change changer, repository, tag string, to digest.Digest, from []digest.Digest) error {
	for _, name := range from {
		if name == "" || name == to {
			continue
		}
		err := change(ctx, name, false, func(image *imagev1.Image) error {
			rules.SetTag(image, repository, tag, false)
			return nil
		})
		if ignoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}

// Remove notes that repository no longer holds the manifest. The last repository
// takes an Image with it that exists only because the manifest was pushed; as
// with any deletion, finalizers on it are waited for.
func (c *Catalog) Remove(ctx context.Context, repository string, name digest.Digest) error {
	ctx = rest.WithAccount(storage.WithRemoval(ctx), repository)
	var orphan *imagev1.Image
	err := c.overwrite(ctx, name, func(image *imagev1.Image) error {
		orphan = nil
		// Without any repository it is an orphan that an earlier call could not delete.
		if held := rules.Repositories(image); len(held) > 0 && !slices.Contains(held, repository) {
			return nil
		}
		rules.RemoveRepository(image, repository)
		left := rules.Repositories(image)
		switch {
		case len(left) == 0 && image.Annotations[rules.AnnotationOrigin] == rules.OriginRegistry:
			orphan = image.DeepCopy()
		case len(left) == 0:
			delete(image.Annotations, rules.AnnotationManaged)
		default:
			moveReference(image, repository, left[0])
		}
		return nil
	})
	if err != nil || orphan == nil {
		return ignoreNotFound(err)
	}
	return c.deleteOrphan(ctx, orphan)
}

// moveReference makes a pull reference into from one into to.
func moveReference(image *imagev1.Image, from, to string) {
	rest := "/" + from + "@" + image.Name
	if host, ok := strings.CutSuffix(image.DockerImageReference, rest); ok {
		image.DockerImageReference = pullReference(host, to, image.Name)
	}
}

// deleteOrphan deletes the Image unless a push has brought it back meanwhile.
func (c *Catalog) deleteOrphan(ctx context.Context, orphan *imagev1.Image) error {
	return c.images.DeleteUnless(ctx, orphan.Name, orphan.UID, func(image *imagev1.Image) bool { return len(rules.Repositories(image)) > 0 })
}
