package catalog

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// TagsAtOnce bounds the tags that one commit deletes.
const TagsAtOnce = 60

// Remove notes that repository no longer holds the manifest, and that none of its tags points to
// it. The last repository takes an Image with it that exists only because the manifest was pushed;
// as with any deletion, finalizers on it are waited for. Many tags go before, some at a time. The
// references are changes of referrers that come with it. It returns the tags that it has removed.
func (c *Catalog) Remove(ctx context.Context, repository string, name digest.Digest, references ...Reference) (removed []string, err error) {
	err = c.referring(ctx, references, func(ctx context.Context) error {
		removed, err = c.remove(rest.WithAccount(storage.WithRemoval(ctx), repository), repository, name, references)
		return err
	})
	return removed, err
}

// RemovalKeys returns the keys under which Remove reads for a manifest with these tags.
func (c *Catalog) RemovalKeys(repository string, name digest.Digest, tags []string) []string {
	return append(c.records.Keys(repository, name, tags), rest.Key(name), referrers.StampKey(name))
}

func (c *Catalog) remove(ctx context.Context, repository string, name digest.Digest, references []Reference) (removed []string, err error) {
	for more := true; more; {
		var orphan *imagev1.Image
		var tags []string
		err := c.together(ctx, func(ctx context.Context, change changer) (err error) {
			orphan = nil
			batch := storage.BatchOf(ctx)
			if tags, err = c.records.TagsOf(ctx, repository, name, TagsAtOnce+1); err != nil {
				return err
			}
			more = len(tags) > TagsAtOnce
			tags = tags[:min(len(tags), TagsAtOnce)]
			entries, err := storage.Prefetch(ctx, c.backend, c.RemovalKeys(repository, name, tags)...)
			if err != nil {
				return err
			}
			ctx = storage.WithPrefetched(ctx, entries)
			for _, tag := range tags {
				if _, err := c.records.SetTag(ctx, batch, records.TagChange{Repository: repository, Tag: tag, Only: name}); err != nil {
					return err
				}
			}
			if more {
				losing := storage.WithTouch(storage.WithTerms(ctx, withoutTags(repository, tags)...), func() bool { return true })
				return ignoreNotFound(change(losing, name, false, func(image *imagev1.Image) error {
					for _, tag := range tags {
						rules.SetTag(image, repository, tag, false)
					}
					return nil
				}))
			}
			if err := c.addReferences(ctx, references); err != nil {
				return err
			}
			held, err := c.records.Release(ctx, batch, repository, name)
			if err != nil {
				return err
			}
			ctx = storage.WithTouch(ctx, func() bool { return held })
			return c.leaveImage(ctx, change, repository, name, &orphan)
		})
		if err == nil && orphan != nil {
			err = c.deleteOrphan(ctx, orphan)
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, tags...)
	}
	return removed, nil
}

// leaveImage takes a repository off an Image, with its tags and signatures. If no other repository
// holds the manifest, an Image that exists only because it was pushed is deleted in the same
// commit; one that waits for finalizers is orphan, and is to be deleted afterwards.
func (c *Catalog) leaveImage(ctx context.Context, change changer, repository string, name digest.Digest, orphan **imagev1.Image) error {
	holders, err := c.records.Holders(ctx, name, 2)
	if err != nil {
		return err
	}
	holders = slices.DeleteFunc(holders, func(r string) bool { return r == repository })
	kept := true
	err = ignoreNotFound(c.deleteImage(ctx, name, func(image *imagev1.Image) bool {
		kept = len(image.Finalizers) > 0 || !goesWith(image, repository, holders)
		return kept
	}))
	if err != nil || !kept {
		return err
	}
	return ignoreNotFound(change(storage.WithTerms(ctx, noTerms(repository)...), name, false, func(image *imagev1.Image) error {
		goes := goesWith(image, repository, holders)
		// Without any repository it is an orphan that an earlier call could not delete.
		if held := rules.Repositories(image); len(held) > 0 && !slices.Contains(held, repository) {
			return nil
		}
		rules.RemoveRepository(image, repository)
		left := append(rules.Repositories(image), holders...)
		switch {
		case goes && orphan != nil:
			*orphan = image.DeepCopy()
		case len(left) == 0:
			delete(image.Annotations, rules.AnnotationManaged)
		default:
			moveReference(image, repository, left[0])
		}
		return nil
	}))
}

// goesWith reports whether an Image exists only because a repository holds its manifest. holders
// are others that hold it.
func goesWith(image *imagev1.Image, repository string, holders []string) bool {
	others := slices.DeleteFunc(rules.Repositories(image), func(r string) bool { return r == repository })
	return len(others)+len(holders) == 0 && image.Annotations[rules.AnnotationOrigin] == rules.OriginRegistry
}

// moveReference makes a pull reference into from one into to.
func moveReference(image *imagev1.Image, from, to string) {
	rest := "/" + from + "@" + image.Name
	if host, ok := strings.CutSuffix(image.DockerImageReference, rest); ok {
		image.DockerImageReference = pullReference(host, to, image.Name)
	}
}

// deleteImage deletes the Image unless keep says that it is to stay.
func (c *Catalog) deleteImage(ctx context.Context, name digest.Digest, keep func(*imagev1.Image) bool) error {
	return c.images.DeleteUnless(ctx, name.String(), "", keep)
}

// deleteOrphan deletes the Image unless a push has brought it back meanwhile.
func (c *Catalog) deleteOrphan(ctx context.Context, orphan *imagev1.Image) error {
	return c.images.DeleteUnless(ctx, orphan.Name, orphan.UID, func(image *imagev1.Image) bool { return len(rules.Repositories(image)) > 0 })
}
