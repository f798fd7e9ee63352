package tracker

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

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
	// aliveTTL is how long a process counts as alive after a call of Orphaned.
	aliveTTL = 3 * time.Second
	// recoveryTTL is the time for which a process has the repositories of a dead one to itself.
	recoveryTTL = time.Minute
	// beginTimeout bounds the time that a change waits to be noted.
	beginTimeout = 2 * time.Second
)

// Underway notes in the store which repositories this process changes: if it dies between a change
// of the registry and that of the records, the next one compares the two.
type Underway struct {
	records *records.Store
	leases  Leases
	process string

	mu   *sync.Mutex
	used map[string]*use // by repository
}

// use is the use of a repository by this process.
type use struct {
	changes int       // under way; under the mutex of Underway
	last    time.Time // when one began; the same

	noting gate // held while the note is made or taken back
	noted  bool
}

func newUnderway(r *records.Store, leases Leases) *Underway {
	return &Underway{records: r, leases: leases, process: rand.Text(), mu: &sync.Mutex{}, used: map[string]*use{}}
}

// begin notes that a repository is about to change, until end. noted is false if that could not be
// stored.
func (u *Underway) begin(ctx context.Context, repository string) (end func(), noted bool) {
	u.mu.Lock()
	used, process := u.used[repository], u.process
	if used == nil {
		used = &use{noting: newGate()}
		u.used[repository] = used
	}
	used.changes++
	used.last = time.Now()
	u.mu.Unlock()

	defer used.noting.lock()()
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
	}, used.noted
}

// Settle takes back the notes of repositories that have not changed for a time.
func (u *Underway) Settle(ctx context.Context, quietTime time.Duration) {
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
func (u *Underway) forget(ctx context.Context, process, repository string, used *use) error {
	defer used.noting.lock()()
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

// Orphaned returns the repositories of processes that are dead, which this process is to compare, and
// whose notes it is to take back (records.Store.End). It says that this process is alive, and is to be called every second.
func (u *Underway) Orphaned(ctx context.Context) (map[string][]string, error) {
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
func (u *Underway) live(ctx context.Context) (process string, err error) {
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
