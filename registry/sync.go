package registry

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/internal/crash"
)

const (
	// drainInterval is how often entries are looked for while there are some.
	drainInterval = time.Second
	// idleInterval is how often they are looked for otherwise: another process
	// (a replica, garbage-collect) may have left some.
	idleInterval = 30 * time.Second
)

// Run does the deferred work until ctx ends. With backfill it first walks over the registry's
// content.
func (r *Recorder) Run(ctx context.Context, backfill bool) {
	select {
	case <-r.ready:
	case <-ctx.Done():
		return
	}
	if backfill {
		r.lost.Store(true)
	}
	var watermarks sync.WaitGroup
	watermarks.Go(func() { r.keepWatermark(ctx) })
	defer watermarks.Wait()
	for ctx.Err() == nil {
		left := r.drain(ctx)
		if r.lost.Load() && r.options.Writer.Ready() == nil {
			r.lost.Store(false)
			r.backfill(ctx)
			continue
		}
		interval := idleInterval
		if left > 0 || r.lost.Load() {
			interval = drainInterval
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-r.notify:
			pause(ctx, drainInterval) // it failed a moment ago
		}
		timer.Stop()
	}
}

// errBusy leaves an entry for the next round.
var errBusy = errors.New("another process is changing it")

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// drain handles all entries once and returns how many are left.
func (r *Recorder) drain(ctx context.Context) int {
	entries, err := r.journal.list(ctx)
	if err != nil && ctx.Err() == nil {
		log(ctx).Error("journal not readable", "err", err)
	}
	journalEntries.Set(float64(len(entries)))
	if len(entries) == 0 || r.options.Writer.Ready() != nil {
		return len(entries)
	}
	left := 0
	synced := map[entry]error{} // several entries may be about one thing
	holders := r.imagesByTag(ctx)
	for _, m := range entries {
		err, done := synced[m.about()]
		if !done {
			if ctx.Err() != nil {
				return left + 1
			}
			err = r.sync(ctx, m, holders)
			if isPermanent(err) {
				r.setAside(ctx, m, err)
				err = nil
			}
			synced[m.about()] = err
		}
		if err == nil {
			err = r.journal.remove(ctx, m)
		}
		if err != nil {
			left++
			log(ctx).Warn("still cannot record", append(m.attributes(), "err", err)...)
		} else if !done {
			log(ctx).Info("pending change recorded", m.attributes()...)
		}
	}
	journalEntries.Set(float64(left))
	return left
}

// imagesByTag returns the manifests whose Images carry each tag (repository:tag). It reads all
// Images, so one is made for a round of entries or a backfill, and only if the round has a
// tag. It may be older than the round: a process that moves a tag takes it off its former
// Image, or leaves an entry for the next round.
type imagesByTag func() (map[string][]digest.Digest, error)

func (r *Recorder) imagesByTag(ctx context.Context) imagesByTag {
	var all map[string][]digest.Digest
	return func() (_ map[string][]digest.Digest, err error) {
		if all == nil { // not yet, or it failed
			all, err = r.options.Writer.ImagesByTag(ctx)
		}
		return all, err
	}
}

// setAside reports a change that can never be recorded.
func (r *Recorder) setAside(ctx context.Context, m entry, err error) {
	recordedTotal.WithLabelValues("failed").Inc()
	log(ctx).Error("cannot record a manifest in the Image API", append(m.attributes(), "err", err)...)
}

// sync makes the Images that m is about agree with the registry. It returns a
// permanent error for an entry that is to be set aside, because trying again would
// fail or panic again.
func (r *Recorder) sync(ctx context.Context, m entry, holders imagesByTag) error {
	return crash.Guard("reconcile", func() error { return r.syncOnce(ctx, m, holders) })
}

func (r *Recorder) syncOnce(ctx context.Context, m entry, holders imagesByTag) error {
	repo, err := openRepository(ctx, r.inner, m.Repository)
	if err != nil {
		return err
	}
	if m.Digest != "" {
		if err := r.syncManifest(ctx, repo, m); err != nil {
			return err
		}
	}
	if m.Tag != "" {
		return r.syncTag(ctx, repo, m, holders)
	}
	return nil
}

// syncManifest reads the manifest: the repository holds it, or it does not.
func (r *Recorder) syncManifest(ctx context.Context, repo distribution.Repository, m entry) error {
	unlock, alone := r.lock(ctx, m)
	defer unlock()
	if !alone {
		return errBusy
	}
	parsed, payload, err := readManifest(ctx, repo, m.Digest)
	if err == nil && payload == nil { // it is not there
		if err := r.options.Writer.Remove(ctx, m.Repository, m.Digest); err != nil {
			return err
		}
		return r.removeReferrer(ctx, m.Repository, m.Digest, m.Subject)
	}
	if err != nil {
		return err
	}
	return r.record(ctx, repo, m.Digest, parsed, payload, cmp.Or(r.options.Host, m.Host, r.options.DefaultHost), "")
}

// syncTag reads the tag and puts it on the Image it points to, and on no other.
func (r *Recorder) syncTag(ctx context.Context, repo distribution.Repository, m entry, holders imagesByTag) error {
	unlock, alone := r.lock(ctx, m)
	defer unlock()
	if !alone {
		return errBusy
	}
	current, err := repo.Tags(ctx).Get(ctx, m.Tag)
	var unknown distribution.ErrTagUnknown
	if err != nil && !errors.As(err, &unknown) {
		return err
	}
	if err := r.recordTagReferrer(ctx, repo, m.Tag, current.Digest); err != nil {
		return err
	}
	all, err := holders()
	if err != nil {
		return err
	}
	for _, holder := range all[m.Repository+":"+m.Tag] {
		if holder == current.Digest {
			continue
		}
		if err := r.options.Writer.SetTag(ctx, m.Repository, m.Tag, holder, false); err != nil {
			return err
		}
	}
	if current.Digest == "" {
		return nil
	}
	return r.pointTag(ctx, repo, m, current.Digest)
}

// pointTag puts the tag on the Image, which it records first if there is none.
func (r *Recorder) pointTag(ctx context.Context, repo distribution.Repository, m entry, to digest.Digest) error {
	err := r.options.Writer.SetTag(ctx, m.Repository, m.Tag, to, true)
	if !apierrors.IsNotFound(err) {
		return err
	}
	if err := r.syncManifest(ctx, repo, entry{Repository: m.Repository, Digest: to, Host: m.Host}); err != nil {
		return err
	}
	err = r.options.Writer.SetTag(ctx, m.Repository, m.Tag, to, true)
	if apierrors.IsNotFound(err) {
		return nil // a tag that points to no manifest
	}
	return err
}

func isManifestUnknown(err error) bool {
	var revision distribution.ErrManifestUnknownRevision
	var unknown distribution.ErrManifestUnknown
	return errors.As(err, &revision) || errors.As(err, &unknown) || errors.Is(err, distribution.ErrBlobUnknown)
}
