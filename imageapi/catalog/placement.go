package catalog

import (
	"context"
	"slices"

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
	err := c.placing(ctx, p.move(), func(ctx context.Context, change changer) error {
		ctx, added, before, err := c.hold(ctx, &p)
		if err != nil {
			return err
		}
		// An Image that does not show a change is written all the same: its terms have changed, and
		// deciders by the holdings at the same time are to fail.
		shows, terms := true, []storage.TermChange{repositoryTerms(p.Repository)}
		if p.Tag != "" {
			terms = append(terms, tagTerms(p.Repository, p.Tag, storage.AddTerms))
		}
		placing := storage.WithTouch(storage.WithTerms(ctx, terms...), func() bool {
			return !shows && (added || p.Tag != "" && before != p.Digest || c.lacksTerms(ctx, p.move()))
		})
		err = change(placing, p.Digest, true, func(image *imagev1.Image) error {
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
				shows = shows && setTag(image, p.Repository, p.Tag)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return loseTag(ctx, change, p.move(), before)
	})
	if err == nil && terminating {
		return ErrTerminating
	}
	return err
}

// RecordWithoutImage records a manifest that is about an image and has none of its own, such as a
// signature. An Image that an older version has made of it goes.
func (c *Catalog) RecordWithoutImage(ctx context.Context, p Push) error {
	return c.placing(ctx, p.move(), func(ctx context.Context, change changer) error {
		ctx, _, before, err := c.hold(ctx, &p)
		if err != nil {
			return err
		}
		if image, _ := storage.Prefetched(ctx, rest.Key(p.Digest)); image != nil {
			if err := c.leaveImage(ctx, change, p.Repository, p.Digest, nil); err != nil {
				return err
			}
		}
		return loseTag(ctx, change, p.move(), before)
	})
}

// placing is together for a move, with its references.
func (c *Catalog) placing(ctx context.Context, m Move, fn func(ctx context.Context, change changer) error) error {
	return c.referring(ctx, m.References, func(ctx context.Context) error {
		return c.together(rest.WithAccount(ctx, m.Repository), fn)
	})
}

// hold adds to the commit that the repository holds the manifest, and that the tag of p points to
// it. added is false if the repository held it before. before is the manifest that the tag pointed to,
// "" for none. The context that it returns has the Images of the push.
func (c *Catalog) hold(ctx context.Context, p *Push) (_ context.Context, added bool, before digest.Digest, err error) {
	if ctx, err = c.begin(ctx, p.move()); err != nil {
		return ctx, false, "", err
	}
	batch, descriptor := storage.BatchOf(ctx), p.Manifest.Descriptor(p.Digest)
	facts := records.Holding{MediaType: descriptor.MediaType, Size: descriptor.Size, Subject: p.Manifest.Subject, WithoutImage: !p.Manifest.HasImage()}
	for i := range p.Manifest.Manifests {
		facts.Children = append(facts.Children, p.Manifest.Manifests[i].Digest)
	}
	added, err = c.records.Hold(ctx, batch, p.Repository, p.Digest, facts)
	if err != nil || p.Tag == "" {
		return ctx, added, "", err
	}
	before, err = c.records.SetTag(ctx, batch, records.TagChange{
		Repository: p.Repository, Tag: p.Tag, To: p.Digest, Reference: pullReference(p.Host, p.Repository, p.Digest.String()),
	})
	return ctx, added, before, err
}

// begin reads all that a move is going to change, and adds its references to the commit.
func (c *Catalog) begin(ctx context.Context, m Move) (context.Context, error) {
	entries, err := storage.Prefetch(ctx, c.backend, c.Keys(m)...)
	if err != nil {
		return nil, err
	}
	noteRead(ctx, entries)
	ctx = storage.WithPrefetched(ctx, entries)
	return ctx, c.addReferences(ctx, m.References)
}

// Keys returns the keys under which Record and MoveTag read: of references, those that their keys name.
func (c *Catalog) Keys(m Move) []string {
	names := append(slices.Clone(m.From), m.To)
	slices.Sort(names)
	var keys []string
	for _, name := range slices.Compact(names) {
		if name != "" {
			keys = append(keys, rest.Key(name))
		}
	}
	for i := range m.References {
		r := &m.References[i]
		if r.Signs() { // its signatures are brought up to date next
			keys = append(keys, rest.Key(r.Subject))
		}
		keys = append(keys, r.Key())
	}
	var tags []string
	if m.Tag != "" {
		tags = append(tags, m.Tag)
	}
	keys = append(keys, c.records.Keys(m.Repository, m.To, tags)...)
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Move says that a repository's tag points to the manifest To, "" for none, and to none of those in
// From any more, nor to the one that its record says.
type Move struct {
	Repository, Tag string
	To              digest.Digest
	From            []digest.Digest
	// Host is the registry's own host[:port] for pull references.
	Host string
	// References are changes of referrers that come with it.
	References []Reference
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
	err := c.placing(ctx, m, func(ctx context.Context, change changer) error {
		terminating, missing = false, nil
		ctx, err := c.begin(ctx, m)
		if err != nil {
			return err
		}
		before, err := c.records.SetTag(ctx, storage.BatchOf(ctx), records.TagChange{Repository: m.Repository, Tag: m.Tag, To: m.To, Reference: reference})
		if err != nil {
			return err
		}
		if m.To != "" {
			shows := true
			placing := storage.WithTouch(storage.WithTerms(ctx, tagTerms(m.Repository, m.Tag, storage.AddTerms)), func() bool { return !shows && (before != m.To || c.lacksTerms(ctx, m)) })
			err := change(placing, m.To, false, func(image *imagev1.Image) error {
				terminating = image.DeletionTimestamp != nil
				if err := c.mustHold(ctx, image, m.Repository); err != nil {
					return err
				}
				shows = setTag(image, m.Repository, m.Tag)
				return nil
			})
			if missing = err; err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		return loseTag(ctx, change, m, before)
	})
	switch {
	case err != nil:
		return err
	case missing == nil && terminating:
		return ErrTerminating
	}
	return missing
}

// setTag notes a tag on an Image, and reports whether there is room for it.
func setTag(image *imagev1.Image, repository, tag string) bool {
	rules.SetTag(image, repository, tag, true)
	return slices.Contains(rules.Tags(image), repository+":"+tag)
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

// move is that of the tag of a push.
func (p *Push) move() Move {
	return Move{Repository: p.Repository, Tag: p.Tag, To: p.Digest, From: p.From, Host: p.Host, References: p.References}
}

// loseTag takes a tag off the Images of other manifests than it points to. before is the one of
// which the records say that it had the tag.
func loseTag(ctx context.Context, change changer, m Move, before digest.Digest) error {
	repository, tag, from := m.Repository, m.Tag, append(slices.Clone(m.From), before)
	slices.Sort(from)
	for _, name := range slices.Compact(from) {
		if name == "" || name == m.To {
			continue
		}
		showed := true
		losing := storage.WithTouch(storage.WithTerms(ctx, tagTerms(repository, tag, storage.RemoveTerms)), func() bool { return !showed && name == before })
		err := change(losing, name, false, func(image *imagev1.Image) error {
			showed = slices.Contains(rules.Tags(image), repository+":"+tag)
			rules.SetTag(image, repository, tag, false)
			return nil
		})
		if ignoreNotFound(err) != nil {
			return err
		}
	}
	return nil
}
