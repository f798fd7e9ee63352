package tracker

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/records"
	"tallyman/registry/logging"
)

// Leases are known to all processes that use a store.
type Leases interface {
	// LeaseFor takes the lease called name for holder, or renews it, and reports whether holder
	// has it for the time ttl.
	LeaseFor(ctx context.Context, name, holder string, ttl time.Duration) (held bool, err error)
}

const (
	// aliveTTL is how long a process counts as alive after its last sign of life, every
	// aliveInterval.
	aliveTTL, aliveInterval = 3 * time.Second, time.Second
	// recoveryTTL is the time for which a process has the repositories of a dead one to itself.
	recoveryTTL = time.Minute
	// quietTime is how long a repository must not have changed to have no change under way.
	quietTime = time.Minute
	// beginTimeout bounds the time that a change waits to be noted.
	beginTimeout = 2 * time.Second
)

// underway notes in the store which repositories this process changes: if it dies between a change
// of the registry and that of the records, the next one compares the two.
type underway struct {
	records *records.Store
	leases  Leases
	process string

	mu   *sync.Mutex
	used map[string]*use // by repository
}

// use is the use of a repository by this process.
type use struct {
	changes int       // under way; under the mutex of underway
	last    time.Time // when one began; the same

	noting sync.Mutex // held while the note is made or taken back
	noted  bool
}

func newUnderway(r *records.Store, leases Leases) underway {
	return underway{records: r, leases: leases, process: rand.Text(), mu: &sync.Mutex{}, used: map[string]*use{}}
}

// begin notes that a repository is about to change, until end. Without a store there is a journal
// entry.
func (u *underway) begin(ctx context.Context, repository string) (end func()) {
	u.mu.Lock()
	used, process := u.used[repository], u.process
	if used == nil {
		used = &use{}
		u.used[repository] = used
	}
	used.changes++
	used.last = time.Now()
	u.mu.Unlock()

	used.noting.Lock()
	defer used.noting.Unlock()
	if !used.noted {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beginTimeout)
		defer cancel()
		err := u.records.Begin(ctx, process, repository)
		if used.noted = err == nil; err != nil {
			logging.For(ctx).Debug("change not noted beforehand", "repository", repository, "err", err)
		}
	}
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		used.changes--
	}
}

// settle takes back the notes of repositories that have not changed for a time.
func (u *underway) settle(ctx context.Context, quietTime time.Duration) {
	quiet := map[string]*use{}
	u.mu.Lock()
	process := u.process
	for repository, used := range u.used {
		if used.changes == 0 && time.Since(used.last) >= quietTime {
			quiet[repository] = used
		}
	}
	u.mu.Unlock()
	for repository, used := range quiet {
		if err := u.forget(ctx, process, repository, used); err != nil { // it is compared once more than necessary
			logging.For(ctx).Debug("note of a change not taken back", "repository", repository, "err", err)
		}
	}
}

// forget takes back the note of a repository that nobody changes. A change that begins meanwhile
// makes another.
func (u *underway) forget(ctx context.Context, process, repository string, used *use) error {
	used.noting.Lock()
	defer used.noting.Unlock()
	u.mu.Lock()
	changing := used.changes > 0
	u.mu.Unlock()
	if changing {
		return nil
	}
	var err error
	if used.noted {
		err = u.records.End(ctx, process, repository)
		used.noted = false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if used.changes == 0 && u.used[repository] == used {
		delete(u.used, repository)
	}
	return err
}

// orphaned returns the repositories of processes that are dead, which this process is to compare.
func (u *underway) orphaned(ctx context.Context) (map[string][]string, error) {
	own, err := u.live(ctx)
	if err != nil {
		return nil, err
	}
	all, err := u.records.Underway(ctx)
	delete(all, own)
	if err != nil || u.leases == nil {
		return all, err
	}
	for process := range all {
		dead, err := u.leases.LeaseFor(ctx, "process:"+process, own, recoveryTTL)
		if err != nil {
			return nil, err
		}
		if !dead {
			delete(all, process)
		}
	}
	return all, nil
}

// live says that this process is alive, and returns its name. It gets another one if it was taken for
// dead, because its notes are gone then.
func (u *underway) live(ctx context.Context) (process string, err error) {
	u.mu.Lock()
	process = u.process
	u.mu.Unlock()
	if u.leases == nil {
		return process, nil
	}
	alive, err := u.leases.LeaseFor(ctx, "process:"+process, process, aliveTTL)
	if err != nil || alive {
		return process, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.process = rand.Text()
	clear(u.used)
	return u.process, nil
}

// recoverRepositories compares the repositories that dead processes have changed with their records,
// and says that this process is alive.
func (t *Tracker) recoverRepositories(ctx context.Context) {
	u := &t.underway
	u.settle(ctx, quietTime)
	orphaned, err := u.orphaned(ctx)
	if err != nil {
		logging.For(ctx).Debug("cannot look for dead processes", "err", err)
		return
	}
	for process, repositories := range orphaned {
		for _, repository := range repositories {
			if !t.compare(ctx, repository) || ctx.Err() != nil {
				return // it is tried again
			}
			if err := u.records.End(ctx, process, repository); err != nil {
				return
			}
		}
	}
}

// keepRecovering calls recoverRepositories again and again until ctx ends, when this process changes
// nothing any more.
func (t *Tracker) keepRecovering(ctx context.Context) {
	for ctx.Err() == nil {
		if t.options.Catalog.Ready() == nil {
			t.recoverRepositories(ctx)
		}
		pause(ctx, aliveInterval)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	t.underway.settle(ctx, 0)
}

// compare makes the records of a repository agree with the registry, in both directions. What the
// registry lacks is confirmed by a read of that thing alone. It returns false if it could not be
// done.
func (t *Tracker) compare(ctx context.Context, repository string) bool {
	b := &backfiller{tracker: t, holders: func() (map[string][]digest.Digest, error) { return nil, nil }}
	err := b.look(ctx, repository, b.bothWays)
	logging.For(ctx).Info("repository compared with its records, after a process died", "repository", repository, "recorded", b.recorded, "failed", b.failed)
	return err == nil
}

// mostGone is the number of records from which on a repository is not believed to have lost more
// than half of them.
const mostGone = 50

// bothWays compares a repository with its records, and the records with it.
func (b *backfiller) bothWays(ctx context.Context, name string) {
	b.repository(ctx, name)
	if b.goOn(ctx) == nil {
		b.gone(ctx, name)
	}
}

// gone looks for records of a repository that the registry does not agree with, and reads the tag or
// manifest of each.
func (b *backfiller) gone(ctx context.Context, name string) {
	repo, err := OpenRepository(ctx, b.tracker.inner, name)
	var manifests distribution.ManifestService
	if err == nil {
		manifests, err = repo.Manifests(ctx)
	}
	if err != nil {
		b.fail(ctx, Entry{Repository: name}, err)
		return
	}
	kept, suspects := 0, []Entry{}
	store := b.tracker.options.Catalog.Records()
	err = store.EachTag(ctx, name, func(tag, to string) error {
		current, err := pointsTo(ctx, repo.Tags(ctx), tag)
		if err == nil && current.String() != to {
			suspects = append(suspects, Entry{Repository: name, Tag: tag})
		} else if err == nil {
			kept++
		}
		return err
	})
	if err == nil {
		err = store.EachHolding(ctx, name, func(d digest.Digest) error {
			held, err := manifests.Exists(ctx, d)
			if err != nil {
				return err
			}
			if held {
				kept++
				return nil
			}
			m := Entry{Repository: name, Digest: d}
			if holding, err := store.Holding(ctx, name, d); err == nil && holding != nil {
				m.Subject = holding.Subject
			}
			suspects = append(suspects, m)
			return nil
		})
	}
	if err != nil {
		b.fail(ctx, Entry{Repository: name}, err)
		return
	}
	if len(suspects) >= mostGone && len(suspects) > kept {
		b.failed++
		logging.For(ctx).Error("the registry lacks most of a repository; its records stay", "repository", name, "missing", len(suspects), "there", kept)
		return
	}
	for _, m := range suspects {
		b.sync(ctx, m)
	}
}
