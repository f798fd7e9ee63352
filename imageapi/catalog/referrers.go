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
	return c.referring(ctx, references, func(ctx context.Context) error {
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
func (c *Catalog) referring(ctx context.Context, references []Reference, commit func(context.Context) error) error {
	change := &referringChange{written: map[string]int64{}}
	if len(references) > 0 {
		ctx = storage.WithWritten(context.WithValue(ctx, referringKey{}, change), change.written)
	}
	if err := commit(ctx); err != nil {
		return err
	}
	for i := range references {
		if r := &references[i]; r.changesSignatures() {
			if err := c.refreshSubject(ctx, r, change.reading(r.Subject)); err != nil {
				return err
			}
		}
	}
	return nil
}

// referringChange is a change that has references: the entries that it has read, and the revisions of those
// that it has put.
type referringChange struct {
	read    map[string]*storage.Entry
	written map[string]int64
}

type referringKey struct{}

// noteRead notes entries that the change of a context has read.
func noteRead(ctx context.Context, entries map[string]*storage.Entry) {
	if change, ok := ctx.Value(referringKey{}).(*referringChange); ok {
		change.read = entries
	}
}

// reading returns the beginning of a refresh of a subject, of which nothing is to be read again: the commit of
// the refresh finds out whether it is true still. It is nil if the change does not tell, or if it has found no
// Image, as there may be one by now.
func (r *referringChange) reading(subject digest.Digest) *reading {
	image, stamp := r.read[rest.Key(subject)], referrers.StampKey(subject)
	revision, written := r.written[stamp]
	if image == nil || !written {
		return nil
	}
	return &reading{entries: map[string]*storage.Entry{image.Key: image, stamp: {Key: stamp, Revision: revision}}}
}

// postponed are the subjects whose signatures are to be brought up to date.
type postponed struct {
	subjects map[digest.Digest]postponedSubject
}

type postponedSubject struct {
	repository string   // one in which they have changed
	reading    *reading // nil if it is to be read
}

type postponedKey struct{}

func (c *Catalog) refreshSubject(ctx context.Context, r *Reference, known *reading) error {
	if p, ok := ctx.Value(postponedKey{}).(*postponed); ok {
		p.subjects[r.Subject] = postponedSubject{r.Repository, known}
		return nil
	}
	return c.refreshSignatures(rest.WithAccount(ctx, r.Repository), r.Subject, known)
}

// refreshTimeout bounds the time in which the Images of subjects are brought up to date.
const refreshTimeout = 15 * time.Second

// VerifyOutside calls fn, which takes locks, changes Images with the context that it is given, and
// frees the locks. Then signatures are verified, and the Images of subjects brought up to date. fn
// is called again when signatures have been verified that it was to write itself.
func (c *Catalog) VerifyOutside(ctx context.Context, fn func(context.Context) error) error {
	p := &postponed{subjects: map[digest.Digest]postponedSubject{}}
	err := c.images.VerifyOutside(ctx, func(ctx context.Context) error { return fn(context.WithValue(ctx, postponedKey{}, p)) })
	if len(p.subjects) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	for subject, s := range p.subjects {
		err = errors.Join(err, c.refreshSignatures(rest.WithAccount(ctx, s.repository), subject, s.reading))
	}
	return err
}
