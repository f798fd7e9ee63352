// Package tracker keeps Images in step with the registry: it records manifests, tags and
// deletions, at once where it can, and later where it cannot.
//
// manifests.go has the story of a manifest, tags.go of a tag, referrers.go of the references
// from one manifest to another.
//
// # Guarantees
//
// Records are level-triggered: to reconcile is to read the registry and make the Image agree, any
// number of times, in any order. A change that cannot be recorded is in the journal before its
// client has an answer, or the client has an error.
package tracker

import (
	"context"
	"sync"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/registry/configs"
	"tallyman/registry/journal"
	"tallyman/signatures"
	"tallyman/storage"
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

// Options configures New.
type Options struct {
	// Catalog has the Images. Required.
	Catalog *catalog.Catalog
	// Referrers has the referrers. Required.
	Referrers *referrers.Store
	// OnStoreFailure is Defer if empty, and in a pull-through cache, where Reject would fail
	// pulls.
	OnStoreFailure FailurePolicy
	// Host is the registry's host[:port] in pull references; if empty, the host
	// that the pushing client used.
	Host string
	// DefaultHost takes its place for content without a pushing client, such as content from
	// before tallyman.
	DefaultHost string
	// RefuseAmbiguous refuses to take manifests that clients may read differently. A pull-through
	// cache takes them.
	RefuseAmbiguous bool
	// Version is that of this program. A manifest that one version cannot read is tried again by
	// another.
	Version string
	// PullThrough is set if the registry is a pull-through cache.
	PullThrough bool
	// SignatureLimits bounds the signatures of an Image. Required.
	SignatureLimits signatures.Limits
	// Lock, if set, takes locks, all or none, that are one for all processes which change the
	// same registry at the same time, and reads entries of the store once it has them. If it fails, or
	// if a lock was lost meanwhile, the change is reconciled again.
	Lock storage.LockFunc
	// Alone, if set, reports whether no older version of this program uses the store. Nil means
	// that there is none.
	Alone func() bool
	// Leases, if set, are those of all processes that use the store. Nil means that this one is
	// alone.
	Leases Leases
}

// Tracker keeps Images in step with the registry. The middleware calls it; Run does the
// deferred work.
type Tracker struct {
	options Options
	inner   distribution.Namespace
	configs *configs.Cache
	journal *journal.Journal
	driver  driver.StorageDriver
	// Held while a manifest, or a tag, is changed in the registry and in its
	// Image, so that the two changes are one for everybody in this process.
	manifestLocks, tagLocks keyedLock

	notify chan struct{} // wakes Run

	mu       sync.Mutex
	awaiting map[digest.Digest][]journal.Entry // by config: Images that lack it
	// unwritten are entries that the registry's storage has not taken yet.
	unwritten []journal.Entry

	underway *Underway
}

// New returns a Tracker of the registry inner with its storage d.
func New(inner distribution.Namespace, d driver.StorageDriver, o Options) *Tracker {
	if o.OnStoreFailure == "" || o.PullThrough {
		o.OnStoreFailure = Defer
	}
	return &Tracker{
		options: o, inner: inner, configs: configs.New(), journal: journal.New(d), driver: d, notify: make(chan struct{}, 1), awaiting: map[digest.Digest][]journal.Entry{},
		manifestLocks: newKeyedLock(), tagLocks: newKeyedLock(), underway: newUnderway(o.Catalog.Records(), o.Leases),
	}
}

// PullThrough reports whether the registry is a pull-through cache.
func (t *Tracker) PullThrough() bool { return t.options.PullThrough }

// RefusesAmbiguous reports whether manifests that clients may read differently are not to be taken.
func (t *Tracker) RefusesAmbiguous() bool { return t.options.RefuseAmbiguous && !t.options.PullThrough }

// Repository opens a repository of the registry, whose changes are not recorded.
func (t *Tracker) Repository(ctx context.Context, name string) (distribution.Repository, error) {
	return OpenRepository(ctx, t.inner, name)
}

// Registry returns the registry, whose changes are not recorded.
func (t *Tracker) Registry() distribution.Namespace { return t.inner }

// Configs has the small blobs that clients have pushed lately.
func (t *Tracker) Configs() *configs.Cache { return t.configs }

// Driver returns the registry's storage.
func (t *Tracker) Driver() driver.StorageDriver { return t.driver }

// Catalog returns the Images and records.
func (t *Tracker) Catalog() *catalog.Catalog { return t.options.Catalog }

// Underway has the notes of repositories that processes are changing.
func (t *Tracker) Underway() *Underway { return t.underway }

// Ready fails while changes cannot be recorded.
func (t *Tracker) Ready() error { return t.options.Catalog.Ready() }

func (t *Tracker) wake() {
	select {
	case t.notify <- struct{}{}:
	default:
	}
}

// detached returns a context that survives the client, for work that must follow a stored
// manifest.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

var (
	recordedTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "imageapi_pushes_recorded_total",
		Help: "Manifests and tags that reached the registry, by outcome: recorded, deferred, rejected, failed.",
	}, []string{"result"})
	derivationSeconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "imageapi_derivation_duration_seconds",
		Help:    "Time to read the config of a pushed manifest and derive its Image.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	})
	journalEntries = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_pending_changes",
		Help: "Changes in the registry that wait to be recorded, when last looked at.",
	})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{recordedTotal, derivationSeconds, journalEntries}
}
