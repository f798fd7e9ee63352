package catalog

import (
	"context"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
)

// SetReferrer stores a referrer in a repository, and brings the signatures of its subject's
// Image up to date.
func (c *Catalog) SetReferrer(ctx context.Context, r *referrers.Referrer) error {
	_, err := c.referrers.Set(ctx, r)
	if err != nil || !r.Signs() || r.Tag == "" && len(r.Signatures) == 0 {
		return err
	}
	return c.RefreshSignatures(rest.WithAccount(ctx, r.Repository), r.Subject)
}

// RemoveReferrer removes the referrer that SetReferrer stored under the same subject,
// repository, and tag or digest, and brings the signatures of its subject's Image up to date.
func (c *Catalog) RemoveReferrer(ctx context.Context, r *referrers.Referrer) error {
	_, err := c.referrers.Remove(ctx, r)
	if err != nil || !r.Signs() {
		return err
	}
	return c.RefreshSignatures(rest.WithAccount(ctx, r.Repository), r.Subject)
}
