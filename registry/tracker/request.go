package tracker

import (
	"cmp"
	"context"
	"slices"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/records"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
)

// Request is one request of a client. A manifest that it pushes with a tag is recorded with the
// tag, as one change: between the two, it is kept here. So are the tags of a manifest that it deletes.
// The zero value has nothing.
type Request struct {
	stored    *stored
	untagging *untagging
}

// stored is a manifest that the registry has stored, and that is not recorded yet.
type stored struct {
	tracker *Tracker
	repo    distribution.Repository
	entry   journal.Entry
	push    Push
	locks   *held // of the manifest and the tag
}

// untagging are tags that were recorded as deleted, with their manifest, while the registry has them
// still: distribution deletes them next.
type untagging struct {
	repository string
	tags       []string
	unlock     func() // of the manifest and the tags
}

type requestKey struct{}

// WithRequest returns a context for the calls of a request. Its end is to be told by End.
func WithRequest(ctx context.Context, r *Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// requestOf returns the Request of a context, nil if it has none.
func requestOf(ctx context.Context) *Request {
	r, _ := ctx.Value(requestKey{}).(*Request)
	return r
}

// End records a manifest whose tag did not come, because the request failed.
func (r *Request) End(ctx context.Context) error {
	if u := r.untagging; u != nil {
		r.untagging = nil
		u.unlock()
	}
	s := r.stored
	if s == nil {
		return nil
	}
	r.stored = nil
	defer s.locks.unlock()
	err := s.tracker.options.Catalog.VerifyOutside(context.WithoutCancel(ctx), func(ctx context.Context) error {
		return s.tracker.recordPush(ctx, s.repo, &s.entry, s.push, s.locks.alone)
	})
	return s.tracker.handleFailure(ctx, s.entry, err)
}

// store stores a manifest with put, and leaves it to Tagged or End to record it.
func (r *Request) store(ctx context.Context, t *Tracker, repo distribution.Repository, p Push, put func() (digest.Digest, error)) error {
	s := &stored{tracker: t, repo: repo, push: p, entry: journal.Entry{Repository: repo.Named().Name(), Digest: p.Digest}}
	m := journal.Entry{Repository: s.entry.Repository, Digest: p.Digest, Tag: p.Tag}
	s.locks = t.lockAndRead(ctx, m, t.options.Catalog.Keys(catalog.Move{
		Repository: m.Repository, Tag: m.Tag, To: m.Digest, References: referencesOf(m, p.Manifest),
	}))
	var err error
	if s.entry.Digest, err = put(); err != nil {
		s.locks.unlock()
		return err
	}
	r.stored = s
	return nil
}

// storedWith returns the manifest that is to be recorded with a tag of a repository, nil for none.
func storedWith(ctx context.Context, repository, tag string) *stored {
	if r := requestOf(ctx); r != nil && r.stored != nil && r.stored.entry.Repository == repository && r.stored.push.Tag == tag {
		return r.stored
	}
	return nil
}

// isUntagging reports whether the request has recorded already that a tag is deleted.
func isUntagging(ctx context.Context, repository, tag string) bool {
	r := requestOf(ctx)
	return r != nil && r.untagging != nil && r.untagging.repository == repository && slices.Contains(r.untagging.tags, tag)
}

// withPusher notes the origin of a request's changes.
func withPusher(ctx context.Context) context.Context {
	client, _ := ctx.Value("http.request.useragent").(string)
	return records.WithPusher(ctx, records.Pusher{User: logging.User(ctx), Client: client})
}

// host returns the registry's host for the pull references of pushed manifests.
func (t *Tracker) host(ctx context.Context) string {
	host, _ := ctx.Value("http.request.host").(string)
	return cmp.Or(t.options.Host, host, t.options.DefaultHost)
}
