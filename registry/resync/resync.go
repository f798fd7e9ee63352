// Package resync makes the records agree with the registry where they do not, in both directions: it
// compares all of the registry with them from time to time, on demand and when the store has lost
// something, and single repositories when a process has died that was changing them.
//
// # Guarantees
//
// What the registry has is recorded at once. A record of something that the registry lacks goes only
// if a read of that tag or manifest alone says so at its beginning and at the end of the grace
// period, and the record has not changed since before the first read. If the registry lacks many things,
// all of them stay until an operator confirms it.
package resync

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"time"

	"tallyman/imageapi/records"
	"tallyman/registry/logging"
	"tallyman/registry/tracker"
)

// Leases are known to all processes that use a store.
type Leases interface {
	tracker.Leases
	// EndLease gives a lease back, if holder has it.
	EndLease(ctx context.Context, name, holder string) error
}

const (
	// interval is how often it is looked whether there is something to do.
	interval = time.Second
	// removalInterval is how often it is looked for records whose grace period is over.
	removalInterval = 10 * time.Second
	// workers compare repositories at the same time.
	workers = 16
	// leaseName is the lease of the process that compares, leaseTTL the time for which it is taken and
	// leaseInterval that after which it is renewed.
	leaseName               = "resync"
	leaseTTL, leaseInterval = 15 * time.Second, 5 * time.Second
)

// Options configures New.
type Options struct {
	// Tracker records the registry. Required.
	Tracker *tracker.Tracker
	// Leases, if set, are those of all processes that use the store. Nil means that this one is
	// alone.
	Leases Leases
	// Lost, if set, sends when the store has lost something.
	Lost <-chan struct{}
	// Period is the time from one comparison of the whole registry to the next. 0 means that there is
	// none without a reason.
	Period time.Duration
	// Grace is how long a record stays that the registry lacks.
	Grace time.Duration
	// Removals is the percentage of the records that may go without confirmation, once there are 50.
	Removals int
	// CallsPerSecond bounds the calls to the registry's storage by which it is compared; those that record
	// what is found come besides. 0 means no bound.
	CallsPerSecond int
	// Status, if set, is kept up to date.
	Status *Status
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Resyncer compares the registry with its records. Create it with New.
type Resyncer struct {
	options Options
	tracker *tracker.Tracker
	records *records.Store
	resyncs *records.Resyncs
	layout  *layout
	process string

	wanted atomic.Bool // a comparison of everything
	// behind is set with wanted if the store may have more than the registry: it has gone back to
	// an earlier state.
	behind  atomic.Bool
	removed time.Time // when removals were last looked for
}

// New returns a Resyncer.
func New(o Options) *Resyncer {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Status == nil {
		o.Status = &Status{}
	}
	kept := o.Tracker.Catalog().Records()
	return &Resyncer{
		options: o, tracker: o.Tracker, records: kept, resyncs: kept.Resyncs(),
		layout: newLayout(o.Tracker.Driver(), o.CallsPerSecond), process: rand.Text(),
	}
}

// Run compares until ctx ends: at the beginning if atStart is set, and where there is a reason.
func (r *Resyncer) Run(ctx context.Context, atStart bool) {
	r.wanted.Store(atStart)
	var background sync.WaitGroup
	background.Go(func() { r.keepWatermark(ctx) })
	background.Go(func() { r.keepRecovering(ctx) })
	defer background.Wait()
	missing := recordsWatch{complete: !atStart}
	for ctx.Err() == nil {
		if missing.wanting(ctx, r.tracker) {
			r.wanted.Store(true)
		}
		if r.tracker.Ready() == nil {
			r.step(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		case <-r.options.Lost:
			r.behind.Store(true)
			r.wanted.Store(true)
		}
	}
}

// step does what is due.
func (r *Resyncer) step(ctx context.Context) {
	if r.wanted.Load() {
		request := records.ResyncRequest{}
		behind := r.behind.Load()
		if behind { // a record that is too much is one of the earlier state
			request.Grace = new(time.Duration)
		}
		if _, err := r.resyncs.Request(ctx, request); err != nil {
			logging.For(ctx).Debug("resync not requested yet", "err", err)
			return
		}
		r.wanted.Store(false)
		if behind {
			r.behind.Store(false)
		}
	}
	request, state, err := r.resyncs.State(ctx)
	if err != nil {
		logging.For(ctx).Debug("cannot see whether a resync is due", "err", err)
		return
	}
	r.show(&state)
	due := state.Due(&request, r.options.Now(), r.options.Period)
	removing := !state.Blocked && time.Since(r.removed) >= removalInterval
	if !due && !removing {
		return
	}
	leased, end, err := r.lease(ctx)
	if err != nil || leased == nil { // another process does it
		return
	}
	defer end()
	if due {
		if request, state, err = r.resyncs.State(ctx); err != nil || !state.Due(&request, r.options.Now(), r.options.Period) {
			return
		}
		if request.Revision <= state.Handled && !state.Unfinished() { // it is time, and the request was for another
			request = records.ResyncRequest{Revision: state.Handled}
		}
		r.compareAll(leased, request, state)
	}
	if removing {
		r.removed = time.Now()
		if err := r.removeLater(leased); err != nil {
			logging.For(ctx).Debug("records that the registry lacks not removed yet", "err", err)
		}
	}
}

// Once compares the whole registry now, also beside another process that does.
func (r *Resyncer) Once(ctx context.Context, request records.ResyncRequest) (records.ResyncState, error) {
	request, err := r.resyncs.Request(ctx, request)
	if err != nil {
		return records.ResyncState{}, err
	}
	_, state, err := r.resyncs.State(ctx)
	if err != nil {
		return state, err
	}
	r.compareAll(ctx, request, state)
	_, state, err = r.resyncs.State(ctx)
	return state, err
}

// lease takes the lease, and returns a context that ends with it; nil if another process has it.
func (r *Resyncer) lease(ctx context.Context) (leased context.Context, end func(), err error) {
	leases := r.options.Leases
	if leases == nil {
		return ctx, func() {}, nil
	}
	if held, err := leases.LeaseFor(ctx, leaseName, r.process, leaseTTL); err != nil || !held {
		return nil, nil, err
	}
	leased, cancel := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for taken := time.Now(); leased.Err() == nil; {
			select {
			case <-leased.Done():
				return
			case <-time.After(leaseInterval):
			}
			at := time.Now()
			held, err := leases.LeaseFor(leased, leaseName, r.process, leaseTTL)
			if err == nil && held {
				taken = at
			}
			if err == nil && !held || time.Since(taken) > leaseTTL {
				cancel()
			}
		}
	})
	return leased, func() {
		cancel()
		renewing.Wait()
		_ = leases.EndLease(context.WithoutCancel(ctx), leaseName, r.process) // otherwise it ends by itself
	}, nil
}

// recordsWatch finds out when the registry is to be walked over for records. Older versions of this
// program make none: as long as one may write, records are not complete, and when none is left, the
// walk is made once more.
type recordsWatch struct{ complete, walked, alone bool }

func (w *recordsWatch) wanting(ctx context.Context, t *tracker.Tracker) bool {
	if w.complete || w.walked && w.alone {
		return false
	}
	complete, err := t.Recorded(ctx)
	if w.complete = complete; err != nil || complete {
		return false
	}
	alone := t.Alone()
	if w.walked && !alone {
		return false
	}
	w.walked, w.alone = true, alone
	return true
}
