// Package importer imports the images that tags of image streams ask for by a source in another registry: once
// for each change of the source, and again and again if importPolicy.scheduled is set.
//
// # Guarantees
//
// Of all processes on a store one imports. A failure that the tag shows is not tried again before the source
// changes or, of a scheduled tag, its time comes. One that it cannot show, such as an outage of the store, is tried
// again after a minute. Three imports go on at a time, and at most 60 scheduled ones begin in a minute.
package importer

import (
	"context"
	cryptorand "crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"k8s.io/utils/ptr"

	"tallyman/internal/crash"
)

const (
	// lookInterval is how often it is looked for tags, and the lease renewed, which is far less than it lasts.
	lookInterval = 2 * time.Second
	// retryInterval is how long a tag waits whose import has left no trace.
	retryInterval = time.Minute
	// workers import at the same time.
	workers = 3
	// scheduledPerMinute is how many scheduled imports begin in a minute, as on OpenShift.
	scheduledPerMinute = 60
	// leaseName is the lease of the process that imports.
	leaseName = "imports"
)

// Leases are the leases of the processes on a store.
type Leases interface {
	// Lease takes the lease called name for holder, or renews it. It ends by itself some time after
	// the last renewal.
	Lease(ctx context.Context, name, holder string) (held bool, err error)
	// EndLease gives a lease back.
	EndLease(ctx context.Context, name, holder string) error
}

// Tags are the tags of all image streams.
type Tags interface {
	// EachImport calls fn with the tags whose source is to be imported now or, if scheduled is set, on a schedule.
	EachImport(ctx context.Context, scheduled bool, fn func(*imagev1.ImageTag) error) error
}

// Options configures New.
type Options struct {
	// Tags are looked at. Required.
	Tags Tags
	// Import imports the source of a tag. Required.
	Import func(ctx context.Context, tag *imagev1.ImageTag) error
	// Interval is the time from one import of a scheduled tag to the next. 0 means that none is scheduled.
	Interval time.Duration
	// Leases are one for all processes on the store; nil if this is the only one.
	Leases Leases
}

// Importer imports. Create it with New.
type Importer struct {
	options Options
	id      string
	limit   *rate.Limiter
	busy    sync.WaitGroup
	slots   chan struct{}

	mu   sync.Mutex
	next map[string]time.Time // when a tag may be imported again, by the reason
	work map[string]bool      // tags that are being imported
}

// New returns an Importer.
func New(o Options) *Importer {
	return &Importer{
		options: o, id: cryptorand.Text(), slots: make(chan struct{}, workers),
		limit: rate.NewLimiter(rate.Every(time.Minute/scheduledPerMinute), int(lookInterval/(time.Minute/scheduledPerMinute))), next: map[string]time.Time{}, work: map[string]bool{},
	}
}

// Run imports until ctx ends.
func (i *Importer) Run(ctx context.Context) {
	ticker := time.NewTicker(lookInterval)
	defer ticker.Stop()
	defer i.busy.Wait()
	for {
		select {
		case <-ctx.Done():
			i.resign(ctx)
			return
		case <-ticker.C:
		}
		// A panic is logged and counted.
		if err := crash.Guard("look for imports", func() error { return i.look(ctx) }); err != nil && ctx.Err() == nil {
			slog.Debug("cannot look for images to import", "err", err)
		}
	}
}

// resign gives the lease back. If that fails it ends by itself.
func (i *Importer) resign(ctx context.Context) {
	if i.options.Leases == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookInterval)
	defer cancel()
	if err := i.options.Leases.EndLease(ctx, leaseName, i.id); err != nil {
		slog.Debug("lease not given back", "lease", leaseName, "err", err)
	}
}

// look begins the imports that are due.
func (i *Importer) look(ctx context.Context) error {
	if i.options.Leases != nil {
		held, err := i.options.Leases.Lease(ctx, leaseName, i.id)
		if err != nil || !held {
			return err
		}
	}
	found := map[string]bool{}
	err := i.options.Tags.EachImport(ctx, false, func(tag *imagev1.ImageTag) error {
		id := fmt.Sprintf("%s#%d", key(tag), ptr.Deref(tag.Spec.Generation, 0)) // another source does not wait
		if found[id] = true; i.due(tag, id, 0) {
			i.begin(ctx, tag, id, retryInterval)
		}
		return nil
	})
	if err == nil && i.options.Interval > 0 {
		err = i.lookScheduled(ctx, found)
	}
	if err == nil {
		i.forget(found)
	}
	return err
}

// lookScheduled begins the scheduled imports that are due, and adds their reasons to found.
func (i *Importer) lookScheduled(ctx context.Context, found map[string]bool) error {
	return i.options.Tags.EachImport(ctx, true, func(tag *imagev1.ImageTag) error {
		id := key(tag)
		// The first time is spread: all tags of a store come at once when its process begins.
		if found[id] = true; i.due(tag, id, rand.N(i.options.Interval)) && i.limit.Allow() { //nolint:gosec // it spreads work alone
			i.begin(ctx, tag, id, i.options.Interval)
		}
		return nil
	})
}

func key(tag *imagev1.ImageTag) string { return tag.Namespace + "/" + tag.Name }

// due reports whether a tag may be imported now, for the reason id: for one that has not been seen before after a
// while.
func (i *Importer) due(tag *imagev1.ImageTag, id string, first time.Duration) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	next, seen := i.next[id]
	if !seen {
		next = time.Now().Add(first)
		i.next[id] = next
	}
	return !time.Now().Before(next) && !i.work[key(tag)]
}

// forget forgets the reasons that are no longer there.
func (i *Importer) forget(found map[string]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	maps.DeleteFunc(i.next, func(id string, _ time.Time) bool { return !found[id] })
}

// begin imports a tag in the background, if there is a free worker, and not again for the same reason before a
// while.
func (i *Importer) begin(ctx context.Context, tag *imagev1.ImageTag, id string, again time.Duration) {
	select {
	case i.slots <- struct{}{}:
	default:
		return // the next look comes soon
	}
	i.mark(tag, true)
	i.busy.Go(func() {
		defer func() { <-i.slots }()
		defer i.mark(tag, false)
		err := crash.Guard("import", func() error { return i.options.Import(ctx, tag) })
		switch {
		case err == nil:
			importsTotal.WithLabelValues("success").Inc()
		case ctx.Err() == nil:
			importsTotal.WithLabelValues("failure").Inc()
			slog.Warn("image not imported", "namespace", tag.Namespace, "tag", tag.Name, "from", tag.Spec.From.Name, "err", err)
		}
		i.mu.Lock()
		i.next[id] = time.Now().Add(again)
		i.mu.Unlock()
	})
}

func (i *Importer) mark(tag *imagev1.ImageTag, working bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.work[key(tag)] = working; !working {
		delete(i.work, key(tag))
	}
}

var importsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "imageapi_tag_imports_total", Help: "Imports of the sources in other registries of tags, by result: success, failure.",
}, []string{"result"})

// Collectors returns the metrics of this package.
func Collectors() []prometheus.Collector { return []prometheus.Collector{importsTotal} }
