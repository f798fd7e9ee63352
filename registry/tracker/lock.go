package tracker

import (
	"context"
	"hash/maphash"
	"sync"

	"tallyman/registry/journal"
	"tallyman/registry/logging"
)

// lock takes the lock of the manifest or tag in m, within this process and, with
// Options.Lock, among all processes. alone is false if the shared lock could not
// be taken. If unlock finds that the shared lock was lost, m is reconciled again.
func (t *Tracker) lock(ctx context.Context, m journal.Entry) (unlock func(), alone bool) {
	local, key := t.manifestLocks, m.Repository+"@"+m.Digest.String()
	if m.Tag != "" {
		local, key = t.tagLocks, m.Repository+":"+m.Tag
	}
	free := local.lock(key)
	if t.options.Lock == nil {
		return free, true
	}
	freeAll, err := t.options.Lock(ctx, key)
	if err != nil {
		logging.For(ctx).Warn("lock not taken, change requeued", "key", key, "err", err)
		return free, false
	}
	return func() {
		if !freeAll() {
			ctx, cancel := detached(ctx)
			defer cancel()
			logging.For(ctx).Warn("lock lost while held, reconciling again", "key", key)
			t.requeue(ctx, m)
		}
		free()
	}, true
}

// keyedLock is a lock for each key; keys may share one.
type keyedLock struct {
	seed  maphash.Seed
	locks *[256]sync.Mutex
}

func newKeyedLock() keyedLock { return keyedLock{seed: maphash.MakeSeed(), locks: &[256]sync.Mutex{}} }

func (k keyedLock) lock(key string) (unlock func()) {
	l := &k.locks[maphash.String(k.seed, key)%uint64(len(k.locks))]
	l.Lock()
	return l.Unlock
}
