package verification

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"tallyman/imageapi/rest"
	"tallyman/internal/crash"
	"tallyman/storage"
)

const (
	// policyPoll is how often the files of signature policies are looked at.
	policyPoll = 2 * time.Second
	// joinInterval is how often the policies in force are looked at, and leases renewed.
	joinInterval = 5 * time.Second
	// pendingInterval is how often pending verifications are looked for.
	pendingInterval = time.Second
	// pendingWorkers is how many pending Images are verified at a time.
	pendingWorkers = 2
	// workLease is the lease of the one process that verifies in the background.
	workLease = "verification"
)

// Images are the Images to keep verified. catalog.Catalog is them.
type Images interface {
	// RefreshSignatures takes the signatures of an Image from the content of repositories, and
	// verifies them.
	RefreshSignatures(ctx context.Context, name digest.Digest) error
	// EachSigned calls fn with every Image that has signatures and, with subjects, with those that
	// may lack some. It ends with the first error of fn.
	EachSigned(ctx context.Context, subjects bool, fn func(digest.Digest) error) error
	// EachPending calls fn with every Image whose signatures are not all verified. It fails with
	// storage.ErrNoIndex while it cannot find them, and ends with the first error of fn.
	EachPending(ctx context.Context, fn func(digest.Digest) error) error
}

// background is the work of Run.
type background struct {
	*Verifier
	images Images
	id     string        // of this process
	wake   chan struct{} // the policies have been reloaded
	// leads is set while this process is the one that verifies in the background; look is sent to when
	// it, or the policies, may have changed.
	leads atomic.Bool
	look  chan struct{}
}

// Run keeps the policies in force, and the verdicts of all Images up to date, until ctx ends: at
// once, when the policies have changed, and, as keys and certificates expire, by the interval. On
// one store one process does it.
func (v *Verifier) Run(ctx context.Context, images Images, interval time.Duration) {
	b := &background{Verifier: v, images: images, id: rand.Text(), wake: make(chan struct{}, 1), look: make(chan struct{}, 1)}
	ctx = rest.WithFullVerification(ctx)
	var work sync.WaitGroup
	work.Go(func() { v.options.Policies.Watch(ctx, policyPoll, func() { notify(b.wake) }) })
	work.Go(func() { b.keepLeases(ctx) })
	work.Go(func() { b.keepVerified(ctx, interval) })
	work.Go(func() { b.keepPending(ctx) })
	work.Wait()
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// keepLeases puts the policies in force, and takes and renews the leases.
func (b *background) keepLeases(ctx context.Context) {
	ticker := time.NewTicker(joinInterval)
	defer ticker.Stop()
	defer func() {
		if b.leads.Load() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), joinInterval)
			defer cancel()
			b.endLease(ctx, workLease, b.id)
		}
	}()
	for ctx.Err() == nil {
		b.renew(ctx)
		notify(b.look)
		select {
		case <-ctx.Done():
		case <-b.wake:
		case <-ticker.C:
		}
	}
}

// renew takes or renews the leases. While the store is away all stays as it was.
func (b *background) renew(ctx context.Context) {
	joined, err := b.join(ctx)
	leads := false
	if err == nil && joined {
		leads, err = b.lease(ctx, workLease, b.id)
	}
	if err != nil {
		return
	}
	b.leads.Store(leads)
	if joined {
		policiesInForce.Set(1)
	} else {
		policiesInForce.Set(0)
	}
}

// keepVerified verifies all Images when that is due.
func (b *background) keepVerified(ctx context.Context, interval time.Duration) {
	verified := "" // the set by which all were, as far as this process knows
	for due := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-b.look:
		}
		expired := !time.Now().Before(due)
		if expired {
			b.options.Policies.ClearCache() // results depend on the time
		}
		set := b.options.Policies.Digest()
		switch {
		case !b.leads.Load():
			verified = "" // by the one that does
			if expired {
				due = time.Now().Add(interval)
			}
		case set != b.inForce.Load().digest: // reloaded a moment ago: keepLeases puts them in force
		case expired || verified != set:
			if b.verifyAll(ctx, verified == "") {
				verified, due = set, time.Now().Add(interval)
			}
		}
	}
}

// verifyAll verifies the signatures of all Images. It reports whether it came to the end; an Image
// that cannot be written is logged and passed over. With subjects it also looks for signatures that
// Images lack.
func (b *background) verifyAll(ctx context.Context, subjects bool) bool {
	start, images := time.Now(), 0
	verify := func(name digest.Digest) error {
		images++
		b.refresh(ctx, name)
		return ctx.Err()
	}
	err := b.images.EachSigned(ctx, subjects, verify)
	switch {
	case ctx.Err() != nil:
		return false
	case err != nil:
		slog.Warn("signature verification of all images failed, retrying", "err", err)
		return false
	case images > 0:
		slog.Info("signature verification complete", "images", images, "took", time.Since(start).Round(time.Millisecond).String())
	}
	return true
}

func (b *background) refresh(ctx context.Context, name digest.Digest) {
	if err := crash.Guard("signature verification", func() error { return b.images.RefreshSignatures(ctx, name) }); err != nil && ctx.Err() == nil {
		slog.WarnContext(ctx, "signature verification failed", "digest", name.String(), "err", err)
	}
}

// keepPending verifies the Images that writes have left.
func (b *background) keepPending(ctx context.Context) {
	ticker := time.NewTicker(pendingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if b.leads.Load() {
			b.verifyPending(ctx)
		}
	}
}

// verifyPending verifies the pending Images, some at a time. Without an index they wait until it is
// complete, or for the next verification of all.
func (b *background) verifyPending(ctx context.Context) {
	found := 0
	workers := errgroup.Group{}
	workers.SetLimit(pendingWorkers)
	err := b.images.EachPending(ctx, func(name digest.Digest) error {
		found++
		workers.Go(func() error {
			b.refresh(ctx, name)
			return nil
		})
		return ctx.Err()
	})
	_ = workers.Wait() // of which none fails
	verificationsPending.Set(float64(found))
	if err != nil && ctx.Err() == nil && !errors.Is(err, storage.ErrNoIndex) {
		slog.WarnContext(ctx, "pending signature verifications not readable", "err", err)
	}
}

var (
	policiesInForce = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_signature_policies_in_force",
		Help: "1 if the signature policies of this process are those in force on its store, 0 if another process has others that are newer.",
	})
	verificationsPending = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_signature_verifications_pending",
		Help: "Images whose signatures wait to be verified in the background, in the process that does it.",
	})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{policiesInForce, verificationsPending}
}
