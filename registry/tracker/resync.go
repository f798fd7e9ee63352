package tracker

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rules"
	"tallyman/internal/crash"
	"tallyman/registry/logging"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
)

// Resync walks over the registry's content and records manifests without an Image: content
// from before tallyman, or from a push that was cut off by a crash. A listing may be incomplete, so
// nothing is removed for it. If the store has gone back to an earlier state, it may have what the
// registry has not any more: then each record is compared with a read of its tag or manifest.
func (t *Tracker) Resync(ctx context.Context) {
	start, alone, behind := time.Now(), t.alone(), t.behind.Swap(false)
	b := &backfiller{tracker: t, holders: t.imagesByTag(ctx)}
	seen := map[string]bool{}
	err := EachRepository(ctx, t.inner, func(name string) error {
		seen[name] = true
		if behind {
			return b.look(ctx, name, b.bothWays)
		}
		return b.look(ctx, name, b.repository)
	})
	if err == nil && behind {
		err = b.vanished(ctx, seen)
	}
	if ctx.Err() != nil {
		return
	}
	if b.away {
		t.behind.Store(behind)
		logging.For(ctx).Warn("the image store went away; the registry's content will be gone over again when it is back")
		t.lost.Store(true)
		return
	}
	if err != nil {
		logging.For(ctx).Error("cannot go over all repositories", "err", err)
	}
	if err == nil && alone {
		records := t.options.Catalog.Records()
		err := records.CompleteTerms(ctx) // those that were written in an older format lack them
		if err == nil {
			err = records.SetComplete(ctx)
		}
		if err != nil {
			logging.For(ctx).Error("cannot note that everything is recorded", "err", err)
		}
	}
	logging.For(ctx).Info("backfill complete", "repositories", b.repositories, "manifests", b.manifests,
		"recorded", b.recorded, "failed", b.failed, "setAside", b.setAside, "took", time.Since(start).Round(time.Millisecond).String())
}

// errStoreAway ends a backfill, which begins anew when the store is back.
var errStoreAway = errors.New("the image store is not available")

type backfiller struct {
	tracker                                   *Tracker
	holders                                   imagesByTag
	repositories, manifests, recorded, failed int
	setAside                                  int
	away                                      bool // the store is
}

// look goes over a repository by one of the ways of doing so. A panic in it is a failure.
func (b *backfiller) look(ctx context.Context, name string, way func(context.Context, string)) error {
	if err := crash.Guard("backfill", func() error {
		way(ctx, name)
		return nil
	}); err != nil {
		b.fail(ctx, Entry{Repository: name}, err)
	}
	return b.goOn(ctx)
}

// goOn returns the error that ends the walk, nil if it is to go on.
func (b *backfiller) goOn(ctx context.Context) error {
	if b.away {
		return errStoreAway
	}
	return ctx.Err()
}

// repository goes over one repository. A failure is logged, counted, and does
// not keep the others from being looked at.
func (b *backfiller) repository(ctx context.Context, name string) {
	b.repositories++
	repo, err := OpenRepository(ctx, b.tracker.inner, name)
	if err != nil {
		b.fail(ctx, Entry{Repository: name}, err)
		return
	}
	err = EachManifest(ctx, repo, func(d digest.Digest) error {
		b.manifests++
		b.check(ctx, Entry{Repository: name, Digest: d}, func(image *imagev1.Image) bool {
			return slices.Contains(rules.Repositories(image), name) && !lacksConfig(image) && b.refers(ctx, name, image) && b.holds(ctx, name, d)
		})
		return b.goOn(ctx)
	})
	if b.away {
		return
	}
	if err != nil {
		b.fail(ctx, Entry{Repository: name}, err)
	}
	b.tags(ctx, repo)
}

func (b *backfiller) tags(ctx context.Context, repo distribution.Repository) {
	name, service := repo.Named().Name(), repo.Tags(ctx)
	all, err := service.All(ctx)
	var unknown distribution.ErrRepositoryUnknown
	if err != nil && !errors.As(err, &unknown) {
		b.fail(ctx, Entry{Repository: name}, err)
	}
	for _, tag := range all {
		if b.goOn(ctx) != nil {
			return
		}
		current, err := service.Get(ctx, tag)
		if err != nil {
			continue // deleted since, or broken: then it points to nothing
		}
		if to, known, err := b.tracker.options.Catalog.Records().Tag(ctx, name, tag); err != nil || !known || to != current.Digest {
			b.sync(ctx, Entry{Repository: name, Tag: tag})
			continue
		}
		if b.knowsTag(ctx, name, tag, current.Digest) {
			continue
		}
		image, err := b.tracker.options.Catalog.Get(ctx, current.Digest)
		if err == nil && !refersByTag(tag) && slices.Contains(rules.Tags(image), name+":"+tag) {
			continue
		}
		b.sync(ctx, Entry{Repository: name, Tag: tag})
	}
}

// vanished looks at the repositories that have records, and are not among those that the registry
// has listed. A registry that lacks most of them is not believed.
func (b *backfiller) vanished(ctx context.Context, listed map[string]bool) error {
	var missing []string
	err := b.tracker.options.Catalog.Records().EachRepository(ctx, func(name string) error {
		if !listed[name] {
			missing = append(missing, name)
		}
		return nil
	})
	if err != nil || len(missing) == 0 {
		return err
	}
	if len(listed) == 0 || len(missing) >= mostGone && len(missing) > len(listed) {
		logging.For(ctx).Error("the registry lacks most repositories; their records stay", "missing", len(missing), "there", len(listed))
		return nil
	}
	for _, name := range missing {
		if err := b.look(ctx, name, b.gone); err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether it is recorded that the repository holds the manifest.
func (b *backfiller) holds(ctx context.Context, repository string, name digest.Digest) bool {
	holding, err := b.tracker.options.Catalog.Records().Holding(ctx, repository, name)
	return err == nil && holding != nil
}

// refers reports whether the referrers in the image's manifest are recorded, and the manifest
// itself has an Image.
func (b *backfiller) refers(ctx context.Context, repository string, image *imagev1.Image) bool {
	m, err := manifest.Parse(image.DockerImageManifestMediaType, []byte(image.DockerImageManifest))
	if err == nil && !m.HasImage() { // it may be too large to be in the Image
		return false
	}
	subject := digest.Digest(image.Annotations[derive.AnnotationSubject])
	if subject == "" {
		return true
	}
	known, err := b.tracker.options.Referrers.Get(ctx, &referrers.Referrer{
		Subject: subject, Repository: repository, Descriptor: imagespec.Descriptor{Digest: digest.Digest(image.Name)},
	})
	return err == nil && known != nil
}

// refersByTag reports whether a tag is one that says something about the digest in its
// name.
func refersByTag(tag string) bool {
	_, signs := signatures.SignatureTag(tag)
	_, lists := signatures.ReferrersTag(tag)
	return signs || lists
}

// knowsTag reports whether the target of a signature's tag is recorded.
func (b *backfiller) knowsTag(ctx context.Context, repository, tag string, to digest.Digest) bool {
	subject, ok := signatures.SignatureTag(tag)
	if !ok {
		return false
	}
	known, err := b.tracker.options.Referrers.Get(ctx, &referrers.Referrer{Subject: subject, Repository: repository, Tag: tag})
	return err == nil && known != nil && known.Descriptor.Digest == to
}

// check records the manifest unless its Image is as it should be.
func (b *backfiller) check(ctx context.Context, m Entry, good func(*imagev1.Image) bool) {
	image, err := b.tracker.options.Catalog.Get(ctx, m.Digest)
	switch {
	case err == nil && good(image):
		return
	case err != nil && !apierrors.IsNotFound(err):
		b.fail(ctx, m, err)
		return
	}
	if aside, err := b.tracker.journal.IsSetAside(ctx, m, b.tracker.options.Version); err == nil && aside {
		b.setAside++
		return
	}
	b.sync(ctx, m)
}

func (b *backfiller) sync(ctx context.Context, m Entry) {
	if err := b.tracker.sync(ctx, m, b.holders); err != nil {
		b.fail(ctx, m, err)
		return
	}
	b.recorded++
}

// fail counts a failure and leaves an entry, so that it is tried again.
func (b *backfiller) fail(ctx context.Context, m Entry, err error) {
	if ctx.Err() != nil {
		return
	}
	if isPermanent(err) {
		b.failed++
		b.tracker.setAside(ctx, m, err)
		return
	}
	if b.tracker.options.Catalog.Ready() != nil {
		b.away = true
		return
	}
	b.failed++
	logging.For(ctx).Error("cannot record existing content", append(m.attributes(), "err", err)...)
	if m.Digest == "" && m.Tag == "" {
		return
	}
	if _, err := b.tracker.journal.Add(ctx, m); err != nil {
		logging.For(ctx).Error("journal entry not written", append(m.attributes(), "err", err)...)
	}
	b.tracker.wake()
}

// lacksConfig reports that an image was recorded before its config arrived,
// which happens in a pull-through cache.
func lacksConfig(image *imagev1.Image) bool {
	if !manifest.HasConfig(image.DockerImageManifestMediaType) || image.DockerImageConfig != "" ||
		image.Annotations[derive.AnnotationBlobStored] == "true" {
		return false
	}
	metadata := rules.Metadata(image)
	return metadata.Architecture == "" && metadata.Config == nil && metadata.Created.IsZero()
}
