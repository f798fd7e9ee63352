package tracker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"tallyman/imageapi/catalog"
	"tallyman/internal/crash"
	"tallyman/registry/logging"
)

const (
	// drainInterval is how often entries are looked for while there are some.
	drainInterval = time.Second
	// idleInterval is how often they are looked for otherwise: another process
	// (a replica, garbage-collect) may have left some.
	idleInterval = 30 * time.Second
)

// Run does the deferred work until ctx ends. When the store has lost something, and with backfill
// at the start and when an older version has left the store without records, it walks over the
// registry's content.
func (t *Tracker) Run(ctx context.Context, backfill bool) {
	if backfill {
		t.lost.Store(true)
	}
	var watermarks sync.WaitGroup
	watermarks.Go(func() { t.keepWatermark(ctx) })
	watermarks.Go(func() { t.keepRecovering(ctx) })
	defer watermarks.Wait()
	records := recordsWatch{complete: !backfill}
	for ctx.Err() == nil {
		left := t.Drain(ctx)
		if records.wanting(ctx, t) {
			t.lost.Store(true)
		}
		if t.lost.Load() && t.options.Catalog.Ready() == nil {
			t.lost.Store(false)
			t.Resync(ctx)
			continue
		}
		interval := idleInterval
		if left > 0 || t.lost.Load() {
			interval = drainInterval
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-t.options.Lost:
			t.behind.Store(true)
			t.lost.Store(true)
		case <-t.notify:
			pause(ctx, drainInterval) // it failed a moment ago
		}
		timer.Stop()
	}
}

// recordsWatch finds out when the registry is to be walked over for records. Older versions of this
// program make none: as long as one may write, records are not complete, and when none is left, the
// walk is made once more.
type recordsWatch struct{ complete, walked, alone bool }

func (w *recordsWatch) wanting(ctx context.Context, t *Tracker) bool {
	if w.complete || w.walked && w.alone {
		return false
	}
	complete, err := t.recorded(ctx)
	if w.complete = complete; err != nil || complete {
		return false
	}
	alone := t.alone()
	if w.walked && !alone {
		return false
	}
	w.walked, w.alone = true, alone
	return true
}

// alone reports whether no older version writes.
func (t *Tracker) alone() bool { return t.options.Alone == nil || t.options.Alone() }

// recorded reports whether everything in the registry has records.
func (t *Tracker) recorded(ctx context.Context) (bool, error) {
	if err := t.options.Catalog.Ready(); err != nil {
		return false, err
	}
	return t.options.Catalog.Records().Complete(ctx)
}

// errBusy leaves an entry for the next round.
var errBusy = errors.New("another process is changing it")

// Drain handles all entries once and returns how many are left.
func (t *Tracker) Drain(ctx context.Context) int {
	entries, err := t.journal.List(ctx)
	if err != nil && ctx.Err() == nil {
		logging.For(ctx).Error("journal not readable", "err", err)
	}
	journalEntries.Set(float64(len(entries)))
	if len(entries) == 0 || t.options.Catalog.Ready() != nil {
		return len(entries)
	}
	left := 0
	synced := map[Entry]error{} // several entries may be about one thing
	holders := t.imagesByTag(ctx)
	for _, m := range entries {
		err, done := synced[m.about()]
		if !done {
			if ctx.Err() != nil {
				return left + 1
			}
			err = t.sync(ctx, m, holders)
			if isPermanent(err) {
				t.setAside(ctx, m, err)
				err, done = nil, true // nothing is recorded
			}
			synced[m.about()] = err
		}
		if err == nil {
			err = t.journal.Remove(ctx, m)
		}
		if err != nil {
			left++
			level := slog.LevelWarn
			if errors.Is(err, catalog.ErrTerminating) { // as long as its finalizers say
				level = slog.LevelDebug
			}
			logging.For(ctx).Log(ctx, level, "still cannot record", append(m.attributes(), "err", err)...)
		} else if !done {
			logging.For(ctx).Info("pending change recorded", m.attributes()...)
		}
	}
	journalEntries.Set(float64(left))
	return left
}

// sync makes the Images that m is about agree with the registry. It returns a
// permanent error for an entry that is to be set aside, because trying again would
// fail or panic again.
func (t *Tracker) sync(ctx context.Context, m Entry, holders imagesByTag) error {
	return crash.Guard("reconcile", func() error { return t.syncOnce(ctx, m, holders) })
}

func (t *Tracker) syncOnce(ctx context.Context, m Entry, holders imagesByTag) error {
	repo, err := OpenRepository(ctx, t.inner, m.Repository)
	if err != nil {
		return err
	}
	if m.Digest != "" {
		err = t.options.Catalog.VerifyOutside(ctx, func(ctx context.Context) error { return t.syncManifest(ctx, repo, m.manifest()) })
	}
	if err != nil || m.Tag == "" {
		return err
	}
	return t.options.Catalog.VerifyOutside(ctx, func(ctx context.Context) error { return t.syncTag(ctx, repo, m.tag(), holders) })
}
