package catalog

import (
	"context"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/storage"
)

// RefreshSignatures updates the signatures of an Image, by the content of repositories and by the present
// policies. Without an Image there is nothing to do.
func (c *Catalog) RefreshSignatures(ctx context.Context, name digest.Digest) error {
	return c.refreshSignatures(ctx, name, nil)
}

// refreshSignatures is RefreshSignatures of an Image that may have been read already.
func (c *Catalog) refreshSignatures(ctx context.Context, name digest.Digest, known *reading) error {
	return ignoreNotFound(c.togetherOnce(ctx, func(ctx context.Context, change changer) error {
		r := known
		if known = nil; r == nil {
			entries, err := storage.Prefetch(ctx, c.backend, rest.Key(name), referrers.StampKey(name))
			if err != nil {
				return err
			}
			r = &reading{entries: entries}
		}
		ctx = context.WithValue(storage.WithPrefetched(ctx, r.entries), readingKey{}, r)
		err := change(ctx, name, false, nil)
		if err != nil { // such as one of signatures that are verified next: the commit finds out whether r is true still
			known = r
		}
		return err
	}))
}

// reading has the Image of a subject and its referrers as they were read for a refresh.
type reading struct {
	entries map[string]*storage.Entry
	signing []*referrers.Referrer // nil if they were not read
}

type readingKey struct{}

// signing returns the referrers of a subject that carry signatures.
func (c *Catalog) signing(ctx context.Context, subject digest.Digest) ([]*referrers.Referrer, error) {
	known, _ := ctx.Value(readingKey{}).(*reading)
	if known != nil && known.signing != nil {
		return known.signing, nil
	}
	all := []*referrers.Referrer{}
	err := c.referrers.EachSigning(ctx, subject, c.share(), func(r *referrers.Referrer) { all = append(all, r) })
	if err == nil && known != nil {
		known.signing = all
	}
	return all, err
}
