package tracker

import (
	"cmp"
	"context"
	"strings"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/derive"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
	"tallyman/signatures/manifest"
)

// Push is a manifest that a client pushes.
type Push struct {
	// Manifest is the parsed manifest, nil if the registry takes a document that is none.
	Manifest *manifest.Manifest
	// Err is then the reason.
	Err error
	// Digest is the manifest's digest.
	Digest digest.Digest
	// Tag is the tag that it is pushed with, "" for none.
	Tag string
}

// Pushed stores a manifest with put, and records it, or leaves that to Tagged. Its errors are
// put's, and UnavailableError.
func (t *Tracker) Pushed(ctx context.Context, repo distribution.Repository, p Push, put func() (digest.Digest, error)) error {
	ctx = withPusher(ctx)
	end, _ := t.underway.begin(ctx, repo.Named().Name())
	defer end()
	// With Reject, a push whose manifest cannot be recorded is to leave the tag where it is.
	if r := requestOf(ctx); r != nil && p.Tag != "" && p.Err == nil && t.options.OnStoreFailure == Defer && !t.options.PullThrough {
		return r.store(ctx, t, repo, p, put)
	}
	m := journal.Entry{Repository: repo.Named().Name(), Digest: p.Digest}
	stored, putErr := false, error(nil)
	err := t.options.Catalog.VerifyOutside(context.WithoutCancel(ctx), func(ctx context.Context) error {
		if stored { // signatures were verified, while the registry may have changed
			ctx, cancel := detached(ctx)
			defer cancel()
			return t.syncManifest(ctx, repo, m)
		}
		locks := t.lock(ctx, m)
		defer locks.unlock()
		if m.Digest, putErr = put(); putErr != nil {
			return putErr
		}
		stored = true
		return t.recordPush(locks.last(ctx), repo, &m, p, locks.alone)
	})
	if putErr != nil {
		return putErr
	}
	return t.handleFailure(ctx, m, err)
}

// recordPush records a manifest that the registry has stored, and completes its entry. If that has
// a tag, it is moved from the Images of others.
func (t *Tracker) recordPush(ctx context.Context, repo distribution.Repository, m *journal.Entry, p Push, alone bool, from ...digest.Digest) error {
	ctx, cancel := detached(ctx)
	defer cancel()
	m.Host = t.host(ctx)
	if p.Err != nil {
		return permanentError{p.Err}
	}
	m.Subject = p.Manifest.Subject
	err := t.record(ctx, repo, *m, p.Manifest, true, from...)
	if err == nil && !alone {
		t.requeue(ctx, m.OfManifest())
	}
	return err
}

// forget removes an entry that is done, if there is one.
func (t *Tracker) forget(ctx context.Context, m journal.Entry) {
	if !m.IsStored() {
		return
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	if err := t.journal.Remove(ctx, m); err != nil {
		logging.For(ctx).Warn("journal entry not removed, it is handled again", append(m.Attributes(), "err", err)...)
	}
}

// Reconcile records a manifest of a repository, or that the repository does not hold it. host
// is for the pull reference.
func (t *Tracker) Reconcile(ctx context.Context, repository string, name digest.Digest, host string) error {
	return t.options.Catalog.VerifyOutside(ctx, func(ctx context.Context) error {
		return t.reconcile(ctx, journal.Entry{Repository: repository, Digest: name, Host: host})
	})
}

func (t *Tracker) reconcile(ctx context.Context, m journal.Entry) error {
	repo, err := t.Repository(ctx, m.Repository)
	if err != nil {
		return err
	}
	return t.syncManifest(ctx, repo, m)
}

// syncManifest reads the manifest: the repository holds it, or it does not.
func (t *Tracker) syncManifest(ctx context.Context, repo distribution.Repository, m journal.Entry) error {
	locks := t.lock(ctx, m)
	defer locks.unlock()
	if !locks.alone {
		return errBusy
	}
	parsed, err := t.readManifest(ctx, repo, m.Digest)
	if err != nil {
		return err
	}
	if parsed == nil { // it is not there
		_, err := t.recordDeletion(ctx, m)
		return err
	}
	m.Host = cmp.Or(t.options.Host, m.Host, t.options.DefaultHost)
	return t.record(ctx, repo, m, parsed, false)
}

// record derives the Image of the manifest e, which repo holds, and stores it, with the tag in e
// if there is one. verified says that distribution has just taken the manifest, with all that it names.
func (t *Tracker) record(ctx context.Context, repo distribution.Repository, e journal.Entry, m *manifest.Manifest, verified bool, from ...digest.Digest) error {
	start := time.Now()
	if len(m.Ambiguous) > 0 {
		logging.For(ctx).Warn("ambiguous manifest: clients may read different content", append(e.Attributes(), "fields", strings.Join(m.Ambiguous, ","))...)
	}
	references, err := t.references(ctx, repo, e, m, verified)
	if err != nil {
		return err
	}
	push := catalog.Push{Repository: e.Repository, Digest: e.Digest, Manifest: m, Host: e.Host, Tag: e.Tag, From: from, References: references}
	if !m.HasImage() {
		return t.recordWithoutImage(ctx, push, start)
	}
	hasConfig := m.Config != nil && m.Config.Digest.Validate() == nil
	if hasConfig {
		if verified && !t.options.PullThrough {
			push.Config, err = t.readVerified(ctx, m.Config.Digest, maxConfig)
		} else {
			push.Config, err = readBlob(ctx, repo, m.Config.Digest, maxConfig)
		}
		if err != nil {
			return err
		}
	}
	derived, err := t.derive(ctx, push)
	if err != nil {
		if recordErr := t.recordUnderivable(ctx, push); recordErr != nil {
			return recordErr
		}
		return permanentError{err}
	}
	deriveTime := time.Since(start)
	derivationSeconds.Observe(deriveTime.Seconds())
	if err := t.options.Catalog.Record(ctx, push, derived); err != nil {
		return err
	}
	if hasConfig && push.Config == nil && t.options.PullThrough {
		t.await(m.Config.Digest, journal.Entry{Repository: e.Repository, Digest: e.Digest, Host: e.Host})
	}
	recordedTotal.WithLabelValues("recorded").Inc()
	logging.For(ctx).Info("image recorded",
		"repository", e.Repository, "tag", e.Tag, "digest", e.Digest.String(), "kind", kindOf(derived),
		"derive", deriveTime.Round(time.Microsecond).String(), "total", time.Since(start).Round(time.Microsecond).String())
	return nil
}

// recordUnderivable records the rest of a push of a manifest of which no Image can be made.
func (t *Tracker) recordUnderivable(ctx context.Context, p catalog.Push) error {
	if p.Tag == "" {
		return t.options.Catalog.Refer(ctx, p.References...)
	}
	// The tag points to a manifest without an Image now.
	err := t.options.Catalog.MoveTag(ctx, catalog.Move{Repository: p.Repository, Tag: p.Tag, To: p.Digest, From: p.From, Host: p.Host, References: p.References})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// recordWithoutImage makes sure that a signature or attestation has no Image of its own, as it
// had before the server knew signatures.
func (t *Tracker) recordWithoutImage(ctx context.Context, p catalog.Push, start time.Time) error {
	if err := t.options.Catalog.RecordWithoutImage(ctx, p); err != nil {
		return err
	}
	recordedTotal.WithLabelValues("recorded").Inc()
	logging.For(ctx).Info("manifest about an image recorded",
		"repository", p.Repository, "tag", p.Tag, "digest", p.Digest.String(), "kind", string(p.Manifest.Kind), "subject", p.Manifest.Subject.String(),
		"total", time.Since(start).Round(time.Microsecond).String())
	return nil
}

// derive derives the Image, without its config if that is not the blob that the
// manifest names.
func (t *Tracker) derive(ctx context.Context, push catalog.Push) (*imagev1.Image, error) {
	derived, err := t.options.Catalog.Derive(push)
	if err == nil || push.Config == nil {
		return derived, err
	}
	logging.For(ctx).Warn("image derived without its config", "repository", push.Repository, "digest", push.Digest.String(), "err", err)
	push.Config = nil
	return t.options.Catalog.Derive(push)
}

// kindOf names the kind of a pushed manifest, for the log.
func kindOf(image *imagev1.Image) string {
	if artifact := image.Annotations[derive.AnnotationArtifactType]; artifact != "" {
		return artifact
	}
	return image.DockerImageManifestMediaType
}
