package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi"
	"tallyman/signatures"
)

// FailurePolicy is the treatment of a push that cannot be recorded.
type FailurePolicy string

// The policies.
const (
	// Defer lets the push through and records it when the store is back.
	Defer FailurePolicy = "defer"
	// Reject fails the push with 503; the client pushes again.
	Reject FailurePolicy = "reject"
)

// recordTimeout bounds the time that a push waits for the store.
const recordTimeout = 15 * time.Second

// ImageWriter is the part of the Image API that the registry uses. imageapi.Writer is one.
type ImageWriter interface {
	// Derive returns the Image that a push makes, without storing it.
	Derive(imageapi.Push) (*imagev1.Image, error)
	// Record creates the Image or updates its derived fields.
	Record(ctx context.Context, p imageapi.Push, derived *imagev1.Image) error
	// SetTag notes that a tag points to a manifest, or no longer does.
	SetTag(ctx context.Context, repository, tag string, name digest.Digest, points bool) error
	// Remove notes that a repository no longer holds a manifest.
	Remove(ctx context.Context, repository string, name digest.Digest) error
	// ImagesByTag returns, for each tag (repository:tag) that an Image carries, the
	// manifests of the Images that do. It goes over all Images.
	ImagesByTag(ctx context.Context) (map[string][]digest.Digest, error)
	// SetReferrer stores a referrer in a repository, and RemoveReferrer removes it. changed is
	// false if nothing had to be done.
	SetReferrer(ctx context.Context, r *imageapi.Referrer) (changed bool, err error)
	RemoveReferrer(ctx context.Context, r *imageapi.Referrer) (changed bool, err error)
	// Referrer returns the stored referrer with the keys of r, nil if there is none.
	Referrer(ctx context.Context, r *imageapi.Referrer) (*imageapi.Referrer, error)
	// Referrers returns a page of the manifests of a repository that refer to subject.
	Referrers(ctx context.Context, subject digest.Digest, repository string, after digest.Digest, limit int) (page []imageapi.Referrer, more bool, err error)
	// Revision returns the current revision of the store, and Advance raises it.
	Revision(ctx context.Context) (int64, error)
	Advance(ctx context.Context, revision int64) error
	// RefreshSignatures brings the signatures of an Image, if there is one, up to date.
	RefreshSignatures(ctx context.Context, name digest.Digest) error
	// CreateSignature adds a signature that a client has posted.
	CreateSignature(ctx context.Context, s *imagev1.ImageSignature) error
	// Get returns an Image, or a NotFound error.
	Get(ctx context.Context, name digest.Digest) (*imagev1.Image, error)
	// Ready fails while Images cannot be written.
	Ready() error
}

// RecorderOptions configures NewRecorder.
type RecorderOptions struct {
	// Writer writes the Images. Required.
	Writer ImageWriter
	// OnStoreFailure is Defer if empty, and in a pull-through cache, where Reject would fail
	// pulls.
	OnStoreFailure FailurePolicy
	// Host is the registry's host[:port] in pull references; if empty, the host
	// that the pushing client used.
	Host string
	// DefaultHost takes its place for content without a pushing client, such as content from
	// before tallyman.
	DefaultHost string
	// PullThrough is set if the registry is a pull-through cache.
	PullThrough bool
	// SignatureLimits bounds the signatures of an Image. Required.
	SignatureLimits signatures.Limits
	// Lock, if set, takes a lock that is one for all processes which change the
	// same registry at the same time. If it fails, or if unlock reports that the lock was
	// lost meanwhile, the change is reconciled again.
	Lock func(ctx context.Context, name string) (unlock func() (kept bool), err error)
}

// Recorder keeps Images in step with the registry. The middleware calls it; Run does the
// deferred work.
type Recorder struct {
	options RecorderOptions
	// Held while a manifest, or a tag, is changed in the registry and in its
	// Image, so that the two changes are one for everybody in this process.
	manifestLocks, tagLocks keyedLock

	attached sync.Once
	ready    chan struct{} // closed when inner and pending are set
	inner    distribution.Namespace
	journal  *journal
	notify   chan struct{} // wakes Run
	lost     atomic.Bool   // Run is to go over everything

	mu       sync.Mutex
	awaiting map[digest.Digest][]entry // by config: Images that lack it
}

// NewRecorder returns a Recorder that waits for the registry to be set up.
func NewRecorder(o RecorderOptions) *Recorder {
	if o.OnStoreFailure == "" || o.PullThrough {
		o.OnStoreFailure = Defer
	}
	return &Recorder{
		options: o, ready: make(chan struct{}), notify: make(chan struct{}, 1), awaiting: map[digest.Digest][]entry{},
		manifestLocks: newKeyedLock(), tagLocks: newKeyedLock(),
	}
}

// Backfill makes Run walk over the registry's content and record manifests without an Image.
// It is for a store that has lost something.
func (r *Recorder) Backfill() {
	r.lost.Store(true)
	r.wake()
}

// attach gives the Recorder the registry it is to read, and its storage.
func (r *Recorder) attach(inner distribution.Namespace, d driver.StorageDriver) {
	r.attached.Do(func() {
		r.inner, r.journal = inner, &journal{driver: d}
		close(r.ready)
	})
}

// pushed stores a manifest with put, and records it.
func (r *Recorder) pushed(ctx context.Context, repo *repository, manifest distribution.Manifest, tag string, put func() (digest.Digest, error)) error {
	mediaType, payload, err := manifest.Payload()
	if err != nil {
		return err
	}
	unlock, alone := r.lock(ctx, entry{Repository: repo.name(), Digest: digest.FromBytes(payload)})
	defer unlock()
	stored, err := put()
	if err != nil {
		return err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	host := r.options.Host
	if host == "" {
		host, _ = ctx.Value("http.request.host").(string)
	}
	parsed := signatures.ParseManifest(mediaType, payload)
	m := entry{Repository: repo.name(), Digest: stored, Host: host, Subject: parsed.Subject}
	noteSubject(ctx, m.Subject)
	err = r.record(ctx, repo.Repository, stored, parsed, payload, host, tag)
	if err == nil && !alone {
		r.requeue(ctx, m)
	}
	return r.handleFailure(ctx, m, err)
}

// requeue requeues m.
func (r *Recorder) requeue(ctx context.Context, m entry) {
	if _, err := r.journal.add(ctx, m); err != nil {
		log(ctx).Warn("journal entry not written", append(m.attributes(), "err", err)...)
	}
	r.wake()
}

// detached returns a context that survives the client, for work that must follow a stored
// manifest.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
}

// handleFailure handles the outcome of recording a change that the registry has stored: err is the
// error of recording it.
func (r *Recorder) handleFailure(ctx context.Context, m entry, err error) error {
	if err == nil {
		return nil
	}
	if isPermanent(err) {
		r.setAside(ctx, m, err)
		return nil
	}
	// A tag without a recorded manifest is no failure of the store: a pull-through cache
	// learns of tags before it has their manifests, and one client may delete a manifest while
	// another tags it.
	missing := apierrors.IsNotFound(err)
	if r.options.OnStoreFailure == Reject && !missing {
		recordedTotal.WithLabelValues("rejected").Inc()
		log(ctx).Error("push rejected: the image store is not available", append(m.attributes(), "err", err)...)
		return unavailable(ctx, m, err)
	}
	ctx, cancel := detached(ctx) // the store may have used up the time of the last one
	defer cancel()
	if _, markErr := r.journal.add(ctx, m); markErr != nil {
		recordedTotal.WithLabelValues("rejected").Inc()
		log(ctx).Error("push rejected: it can neither be recorded nor put off", append(m.attributes(), "err", errors.Join(err, markErr))...)
		return unavailable(ctx, m, errors.Join(err, markErr))
	}
	r.wake()
	if missing {
		return nil
	}
	recordedTotal.WithLabelValues("deferred").Inc()
	log(ctx).Warn("the image store is not available; will record when it is back", append(m.attributes(), "err", err)...)
	return nil
}

// deleted deletes a manifest and takes its repository off the Image. The entry
// comes first: if the process dies in between, the next one looks.
func (r *Recorder) deleted(ctx context.Context, repository string, service distribution.ManifestService, name digest.Digest) error {
	unlock, alone := r.lock(ctx, entry{Repository: repository, Digest: name})
	defer unlock()
	parsed, _, err := getManifest(ctx, service, name)
	if err != nil { // one that cannot be read can be deleted all the same
		log(ctx).Warn("subject of a deleted manifest not readable", "repository", repository, "digest", name.String(), "err", err)
		parsed = &signatures.Manifest{}
	}
	m, err := r.journal.add(ctx, entry{Repository: repository, Digest: name, Subject: parsed.Subject})
	if err != nil {
		return fmt.Errorf("note the deletion of %s@%s: %w", repository, name, err)
	}
	err = service.Delete(ctx, name)
	ctx, cancel := detached(ctx)
	defer cancel()
	if err == nil {
		recordErr := r.options.Writer.Remove(ctx, repository, name)
		if recordErr == nil {
			recordErr = r.removeReferrer(ctx, repository, name, m.Subject)
		}
		if recordErr != nil {
			log(ctx).Warn("deletion not recorded yet", append(m.attributes(), "err", recordErr)...)
			r.wake()
			return nil
		}
		log(ctx).Info("manifest deleted", m.attributes()...)
		if !alone {
			r.wake() // the entry stays
			return nil
		}
	}
	if doneErr := r.journal.remove(ctx, m); doneErr != nil {
		log(ctx).Warn("journal entry not removed, it is handled again", append(m.attributes(), "err", doneErr)...)
	}
	return err
}

// tagged moves or removes a tag with change, and with it the tag on the Images
// it pointed and points to.
func (r *Recorder) tagged(ctx context.Context, repo *repository, tag string, service distribution.TagService, change func() error) error {
	unlock, alone := r.lock(ctx, entry{Repository: repo.name(), Tag: tag})
	defer unlock()
	before, beforeErr := pointsTo(ctx, service, tag)
	if err := change(); err != nil {
		return err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	m := entry{Repository: repo.name(), Tag: tag}
	if beforeErr != nil || !alone { // then some Image may carry the tag that is not known here
		r.requeue(ctx, m)
	}
	return r.handleFailure(ctx, m, r.moveTag(ctx, repo.Repository, tag, service, before))
}

// moveTag takes a tag off the Image from, and puts it on the one that it points to
// now.
func (r *Recorder) moveTag(ctx context.Context, repo distribution.Repository, tag string, service distribution.TagService, from digest.Digest) error {
	repository := repo.Named().Name()
	to, err := pointsTo(ctx, service, tag)
	if err != nil {
		return err
	}
	if err := r.recordTagReferrer(ctx, repo, tag, to); err != nil {
		return err
	}
	if from != "" && from != to {
		if err := r.options.Writer.SetTag(ctx, repository, tag, from, false); err != nil {
			return err
		}
	}
	if to == "" {
		return nil
	}
	err = r.options.Writer.SetTag(ctx, repository, tag, to, true)
	if apierrors.IsNotFound(err) {
		if m, _, readErr := readManifest(ctx, repo, to); readErr == nil && !m.HasImage() {
			return nil
		}
	}
	return err
}

// pointsTo returns the manifest that a tag points to, "" if there is no such tag.
// A read fails while another process is writing the tag, so it is tried again.
func pointsTo(ctx context.Context, service distribution.TagService, tag string) (digest.Digest, error) {
	const tries = 5
	for i := 1; ; i++ {
		descriptor, err := service.Get(ctx, tag)
		var unknown distribution.ErrTagUnknown
		if errors.As(err, &unknown) {
			return "", nil
		}
		if err == nil || i == tries {
			return descriptor.Digest, err
		}
		pause(ctx, 10*time.Millisecond)
	}
}

// blobArrived looks whether an Image waits for this config.
func (r *Recorder) blobArrived(config digest.Digest) {
	r.mu.Lock()
	waiting := r.awaiting[config]
	delete(r.awaiting, config)
	r.mu.Unlock()
	for _, m := range waiting {
		ctx, cancel := detached(context.Background())
		if err := r.sync(ctx, m, r.imagesByTag(ctx)); err != nil {
			_ = r.handleFailure(ctx, m, err)
		}
		cancel()
	}
}

func (r *Recorder) await(config digest.Digest, m entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const most = 10_000 // a client may fetch manifests only; start-up looks again
	if len(r.awaiting) < most {
		r.awaiting[config] = append(r.awaiting[config], m)
	}
}

func (r *Recorder) wake() {
	select {
	case r.notify <- struct{}{}:
	default:
	}
}

// log returns a logger with the request's id and user, which distribution keeps
// in the context under these names.
func log(ctx context.Context) *slog.Logger {
	logger := slog.Default()
	for _, key := range []string{"http.request.id", "auth.user.name"} {
		if value, ok := ctx.Value(key).(string); ok && value != "" {
			logger = logger.With(key, value)
		}
	}
	if user, ok := ctx.Value(userKey{}).(string); ok && user != "" { // of our own endpoints
		logger = logger.With("auth.user.name", user)
	}
	return logger
}
