package catalog

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
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
		added, from, err := c.hold(ctx, &p)
		if err != nil {
			return err
		}
		shows := true // where it does not, deciders by the holdings at the same time are to fail
		touching := storage.WithTouch(ctx, func() bool { return added && !shows })
		err = change(touching, p.Digest, true, func(image *imagev1.Image) error {
			terminating = image.DeletionTimestamp != nil
			if image.Name == "" {
				derived.DeepCopyInto(image)
				image.Annotations[rules.AnnotationOrigin] = rules.OriginRegistry
			} else {
				refresh(image, derived)
			}
			image.Annotations[rules.AnnotationManaged] = "true"
			rules.AddRepository(image, p.Repository)
			shows = slices.Contains(rules.Repositories(image), p.Repository)
			if p.Tag != "" {
				rules.SetTag(image, p.Repository, p.Tag, true)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return loseTag(ctx, change, p.Repository, p.Tag, p.Digest, from)
	})
	if err == nil && terminating {
		return ErrTerminating
	}
	return err
}

// RecordWithoutImage records a manifest that is about an image and has none of its own, such as a
// signature. An Image that an older version has made of it goes.
func (c *Catalog) RecordWithoutImage(ctx context.Context, p Push) error {
	return c.together(rest.WithAccount(ctx, p.Repository), func(ctx context.Context, change changer) error {
		_, from, err := c.hold(ctx, &p)
		if err != nil {
			return err
		}
		if err := c.leaveImage(ctx, change, p.Repository, p.Digest, nil); err != nil {
			return err
		}
		return loseTag(ctx, change, p.Repository, p.Tag, p.Digest, from)
	})
}

// hold adds to the commit that the repository holds the manifest, and that the tag of p points to
// it. added is false if the repository held it before. from are the manifests that may have the tag.
func (c *Catalog) hold(ctx context.Context, p *Push) (added bool, from []digest.Digest, err error) {
	if ctx, err = c.records.Prefetch(ctx, p.Repository, p.Digest, p.Tag); err != nil {
		return false, nil, err
	}
	batch, descriptor := storage.BatchOf(ctx), p.Manifest.Descriptor(p.Digest)
	facts := records.Holding{MediaType: descriptor.MediaType, Size: descriptor.Size, Subject: p.Manifest.Subject}
	for i := range p.Manifest.Manifests {
		facts.Children = append(facts.Children, p.Manifest.Manifests[i].Digest)
	}
	added, err = c.records.Hold(ctx, batch, p.Repository, p.Digest, facts)
	if err != nil || p.Tag == "" {
		return added, nil, err
	}
	before, err := c.records.SetTag(ctx, batch, records.TagChange{
		Repository: p.Repository, Tag: p.Tag, To: p.Digest, Reference: pullReference(p.Host, p.Repository, p.Digest.String()),
	})
	return added, append(slices.Clone(p.From), before), err
}

// Move says that a repository's tag points to the manifest To, "" for none, and to none of those in
// From any more, nor to the one that its record says.
type Move struct {
	Repository, Tag string
	To              digest.Digest
	From            []digest.Digest
	// Host is the registry's own host[:port] for pull references.
	Host string
}

// MoveTag moves a tag. That is one commit, in which watchers see the gain first. If the tag
// points to a manifest of which there is no Image, or which the repository does not hold by its
// records, the rest is done and NotFound is returned. It fails with ErrTerminating.
func (c *Catalog) MoveTag(ctx context.Context, m Move) error {
	reference := ""
	if m.To == "" {
		ctx = storage.WithRemoval(ctx)
	} else {
		reference = pullReference(m.Host, m.Repository, m.To.String())
	}
	terminating, missing := false, error(nil)
	err := c.together(rest.WithAccount(ctx, m.Repository), func(ctx context.Context, change changer) error {
		terminating, missing = false, nil
		before, err := c.records.SetTag(ctx, storage.BatchOf(ctx), records.TagChange{Repository: m.Repository, Tag: m.Tag, To: m.To, Reference: reference})
		if err != nil {
			return err
		}
		if m.To != "" {
			err := change(ctx, m.To, false, func(image *imagev1.Image) error {
				terminating = image.DeletionTimestamp != nil
				if err := c.mustHold(ctx, image, m.Repository); err != nil {
					return err
				}
				rules.SetTag(image, m.Repository, m.Tag, true)
				return nil
			})
			if missing = err; err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		return loseTag(ctx, change, m.Repository, m.Tag, m.To, append(slices.Clone(m.From), before))
	})
	switch {
	case err != nil:
		return err
	case missing == nil && terminating:
		return ErrTerminating
	}
	return missing
}

// mustHold fails with NotFound unless a repository holds the manifest of an Image. The list on the
// Image may lack some.
func (c *Catalog) mustHold(ctx context.Context, image *imagev1.Image, repository string) error {
	if slices.Contains(rules.Repositories(image), repository) {
		return nil
	}
	holding, err := c.records.Holding(ctx, repository, digest.Digest(image.Name))
	if err == nil && holding == nil {
		err = apierrors.NewNotFound(imageapi.Images, image.Name)
	}
	return err
}

// loseTag takes a tag that points to the manifest to off the Images of others.
func loseTag(ctx context.Context, change changer, repository, tag string, to digest.Digest, from []digest.Digest) error {
	slices.Sort(from)
	for _, name := range slices.Compact(from) {
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

// tagsAtOnce bounds the tags that one commit deletes.
const tagsAtOnce = 20

// Remove notes that repository no longer holds the manifest, and that none of its tags points to
// it. The last repository takes an Image with it that exists only because the manifest was pushed;
// as with any deletion, finalizers on it are waited for. Many tags go before, some at a time.
func (c *Catalog) Remove(ctx context.Context, repository string, name digest.Digest) error {
	ctx = rest.WithAccount(storage.WithRemoval(ctx), repository)
	for more := true; more; {
		var orphan *imagev1.Image
		err := c.together(ctx, func(ctx context.Context, change changer) error {
			orphan = nil
			batch := storage.BatchOf(ctx)
			tags, err := c.records.TagsOf(ctx, repository, name, tagsAtOnce)
			if err != nil {
				return err
			}
			for _, tag := range tags {
				if _, err := c.records.SetTag(ctx, batch, records.TagChange{Repository: repository, Tag: tag}); err != nil {
					return err
				}
			}
			if more = len(tags) == tagsAtOnce; more {
				return ignoreNotFound(change(ctx, name, false, func(image *imagev1.Image) error {
					for _, tag := range tags {
						rules.SetTag(image, repository, tag, false)
					}
					return nil
				}))
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
			return err
		}
	}
	return nil
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
	return ignoreNotFound(change(ctx, name, false, func(image *imagev1.Image) error {
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
