package catalog

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
)

// SetReferrer stores a referrer in a repository, and brings the signatures of its subject's
// Image up to date; within VerifyOutside, at its end.
func (c *Catalog) SetReferrer(ctx context.Context, r *referrers.Referrer) error {
	_, err := c.referrers.Set(ctx, r)
	if err != nil || !r.Signs() || r.Tag == "" && len(r.Signatures) == 0 {
		return err
	}
	return c.refreshSubject(ctx, r)
}

// RemoveReferrer removes the referrer that SetReferrer stored under the same subject,
// repository, and tag or digest, and brings the signatures of its subject's Image up to date as
// SetReferrer does.
func (c *Catalog) RemoveReferrer(ctx context.Context, r *referrers.Referrer) error {
	_, err := c.referrers.Remove(ctx, r)
	if err != nil || !r.Signs() {
		return err
	}
	return c.refreshSubject(ctx, r)
}

// postponed are the subjects whose signatures are to be brought up to date, each with a repository
// in which they have changed.
type postponed struct{ subjects map[digest.Digest]string }

type postponedKey struct{}

func (c *Catalog) refreshSubject(ctx context.Context, r *referrers.Referrer) error {
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
