package tracker

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"tallyman/imageapi/catalog"
	"tallyman/internal/crash"
	"tallyman/registry/journal"
	"tallyman/registry/logging"
)

const (
	// drainInterval is how often entries are looked for while there are some.
	drainInterval = time.Second
	// idleInterval is how often they are looked for otherwise: another process
	// (a replica, garbage-collect) may have left some.
	idleInterval = 30 * time.Second
	// drainWorkers handle entries at the same time, drainChunk of them before the next are begun.
	drainWorkers, drainChunk = 16, 256
	// drainTime is how long older entries are handled before newer ones are looked for.
	drainTime = time.Second
	// firstDelay is the time after which an entry is tried again that could not be recorded. It
	// doubles up to lastDelay, or to terminatingDelay for an Image that waits for its finalizers.
	firstDelay, lastDelay, terminatingDelay = time.Second, time.Minute, 5 * time.Second
)

// Run handles the journal until ctx ends.
func (t *Tracker) Run(ctx context.Context) {
	waits := delays{}
	for ctx.Err() == nil {
		left, more := t.drain(ctx, waits, drainTime)
		if more {
			continue
		}
		interval := idleInterval
		if left > 0 {
			interval = drainInterval
		}
		timer := time.NewTimer(interval)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-t.notify:
			pause(ctx, drainInterval) // it failed a moment ago
		}
		timer.Stop()
	}
}

// Drain handles all entries once and returns how many are left.
func (t *Tracker) Drain(ctx context.Context) int {
	left, _ := t.drain(ctx, delays{}, 0)
	return left
}

// drain handles the entries whose delay is over, newest first. With a limit it ends after that time,
// and more is true if it has not come to all.
func (t *Tracker) drain(ctx context.Context, waits delays, limit time.Duration) (left int, more bool) {
	unwritten := t.writeEntries(ctx)
	files, err := t.journal.Files(ctx)
	if err != nil && ctx.Err() == nil {
		logging.For(ctx).Error("journal not readable", "err", err)
	}
	journalEntries.Set(float64(len(files) + unwritten))
	if len(files) == 0 || t.options.Catalog.Ready() != nil {
		return len(files) + unwritten, false
	}
	d := &drainage{round: t.Round(ctx), waits: waits, left: len(files) + unwritten, done: map[journal.Entry]*attempt{}}
	defer func() { journalEntries.Set(float64(left)) }()
	began, some := time.Now(), false
	for chunk := range slices.Chunk(waits.due(files), drainChunk) {
		if ctx.Err() != nil || t.options.Catalog.Ready() != nil {
			return d.left, false
		}
		if some && limit > 0 && time.Since(began) > limit {
			return d.left, true
		}
		d.handle(ctx, chunk)
		some = true
	}
	return d.left, false
}

// drainage is one round of handling entries.
type drainage struct {
	round *Round

	mu    sync.Mutex // guards the following
	left  int
	waits delays
	done  map[journal.Entry]*attempt // several entries may be about one thing
}

// handle handles the entries in files. Replicas take them in different orders, so that one finds
// that the other has handled an entry.
func (d *drainage) handle(ctx context.Context, files []string) {
	rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
	var group errgroup.Group
	group.SetLimit(drainWorkers)
	for _, file := range files {
		group.Go(func() error {
			if ctx.Err() == nil {
				d.handleFile(ctx, file)
			}
			return nil
		})
	}
	_ = group.Wait() // each has logged its error
}

func (d *drainage) handleFile(ctx context.Context, file string) {
	t := d.round.tracker
	m, known, err := t.journal.Read(ctx, file)
	if err == nil && known {
		if err = d.sync(ctx, m); err == nil {
			err = t.journal.Remove(ctx, m)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.waits, file)
		d.left--
		return
	}
	most, level := lastDelay, slog.LevelWarn
	if errors.Is(err, catalog.ErrTerminating) { // as long as its finalizers say
		most, level = terminatingDelay, slog.LevelDebug
	}
	d.waits.failed(file, most)
	logging.For(ctx).Log(ctx, level, "still cannot record", append(m.Attributes(), "file", file, "err", err)...)
}

// attempt is the one to record a thing in a round.
type attempt struct {
	trying gate
	made   bool
	err    error
}

// sync records the thing that m is about, once in a round: the entries were all there before.
func (d *drainage) sync(ctx context.Context, m journal.Entry) error {
	d.mu.Lock()
	a := d.done[m.About()]
	if a == nil {
		a = &attempt{trying: newGate()}
		d.done[m.About()] = a
	}
	d.mu.Unlock()
	defer a.trying.lock()()
	if a.made {
		return a.err
	}
	a.made, a.err = true, d.round.Sync(ctx, m)
	if isPermanent(a.err) {
		d.round.tracker.setAside(ctx, m, a.err)
		a.err = nil // nothing is recorded
	} else if a.err == nil {
		logging.For(ctx).Info("pending change recorded", m.Attributes()...)
	}
	return a.err
}

// delays are the times before which entries are not tried again, by file.
type delays map[string]delay

type delay struct {
	last time.Duration
	next time.Time
}

// due returns the files whose delay is over, and forgets those that are not in files.
func (d delays) due(files []string) (due []string) {
	now, there := time.Now(), map[string]bool{}
	for _, file := range files {
		there[file] = true
		if !now.Before(d[file].next) {
			due = append(due, file)
		}
	}
	for file := range d {
		if !there[file] {
			delete(d, file)
		}
	}
	return due
}

// failed delays an entry for twice as long as before.
func (d delays) failed(file string, most time.Duration) {
	last := min(max(2*d[file].last, firstDelay), most)
	d[file] = delay{last, time.Now().Add(last)}
}

// Round is a number of things that are recorded together. It is safe for concurrent use.
type Round struct {
	tracker *Tracker
	holders imagesByTag
}

// Round begins one.
func (t *Tracker) Round(ctx context.Context) *Round { return &Round{t, t.imagesByTag(ctx)} }

// Sync reads the manifest or tag that m is about, and makes the records and Images agree with it.
func (r *Round) Sync(ctx context.Context, m journal.Entry) error {
	return r.tracker.sync(ctx, m, r.holders)
}

// errBusy leaves an entry for the next round.
var errBusy = errors.New("another process is changing it")

// sync makes the Images that m is about agree with the registry. It returns a
// permanent error for an entry that is to be set aside, because trying again would
// fail or panic again.
func (t *Tracker) sync(ctx context.Context, m journal.Entry, holders imagesByTag) error {
	return crash.Guard("reconcile", func() error { return t.syncOnce(ctx, m, holders) })
}

func (t *Tracker) syncOnce(ctx context.Context, m journal.Entry, holders imagesByTag) error {
	repo, err := OpenRepository(ctx, t.inner, m.Repository)
	if err != nil {
		return err
	}
	if m.Digest != "" {
		err = t.options.Catalog.VerifyOutside(ctx, func(ctx context.Context) error { return t.syncManifest(ctx, repo, m.OfManifest()) })
	}
	if err != nil || m.Tag == "" {
		return err
	}
	return t.options.Catalog.VerifyOutside(ctx, func(ctx context.Context) error { return t.syncTag(ctx, repo, m.OfTag(), holders) })
}

// Alone reports whether no older version writes.
func (t *Tracker) Alone() bool { return t.options.Alone == nil || t.options.Alone() }

// Recorded reports whether everything in the registry has records.
func (t *Tracker) Recorded(ctx context.Context) (bool, error) {
	return t.options.Catalog.Records().Complete(ctx)
}
