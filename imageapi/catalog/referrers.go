package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/storage"
)

// Reference is a change of a referrer: it is stored, or it is gone, by its subject, repository, and tag
// or digest. Afterwards the signatures of its subject's Image are those that repositories hold; within
// VerifyOutside, at its end.
type Reference struct {
	*referrers.Referrer
	Gone bool
}

// changesSignatures reports whether signatures of the subject may change.
func (r *Reference) changesSignatures() bool {
	return r.Signs() && (r.Gone || r.Tag != "" || len(r.Signatures) > 0)
}

// Refer makes changes of referrers that come with no other change.
func (c *Catalog) Refer(ctx context.Context, references ...Reference) error {
	return c.referring(ctx, references, func() error {
		return c.together(ctx, func(ctx context.Context, _ changer) error {
			return c.addReferences(ctx, references)
		})
	})
}

// addReferences adds changes of referrers to the commit.
func (c *Catalog) addReferences(ctx context.Context, references []Reference) error {
	batch := storage.BatchOf(ctx)
	for i := range references {
		change := c.referrers.Add
		if references[i].Gone {
			change = c.referrers.Remove
		}
		if err := change(ctx, batch, references[i].Referrer); err != nil {
			return err
		}
	}
	return nil
}

// referring makes a change with commit that has references, and brings the signatures of their subjects up
// to date.
func (c *Catalog) referring(ctx context.Context, references []Reference, commit func() error) error {
	if err := commit(); err != nil {
		return err
	}
	for i := range references {
		if r := &references[i]; r.changesSignatures() {
			if err := c.refreshSubject(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// postponed are the subjects whose signatures are to be brought up to date, each with a repository
// in which they have changed.
type postponed struct{ subjects map[digest.Digest]string }

type postponedKey struct{}

func (c *Catalog) refreshSubject(ctx context.Context, r *Reference) error {
	if p, ok := ctx.Value(postponedKey{}).(*postponed); ok {
		p.subjects[r.Subject] = r.Repository
		return nil
	}
	return c.RefreshSignatures(rest.WithAccount(ctx, r.Repository), r.Subject)
}

// refreshTimeout bounds the time in which the Images of subjects are brought up to date.
const refreshTimeout = 15 * time.Second

// VerifyOutside calls fn, which takes locks, changes Images with the context that it is given, and
// frees the locks. Then signatures are verified, and the Images of subjects brought up to date. fn
// is called again when signatures have been verified that it was to write itself.
func (c *Catalog) VerifyOutside(ctx context.Context, fn func(context.Context) error) error {
	p := &postponed{subjects: map[digest.Digest]string{}}
	err := c.images.VerifyOutside(ctx, func(ctx context.Context) error { return fn(context.WithValue(ctx, postponedKey{}, p)) })
	if len(p.subjects) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	for subject, repository := range p.subjects {
		err = errors.Join(err, c.RefreshSignatures(rest.WithAccount(ctx, repository), subject))
	}
	return err
}
