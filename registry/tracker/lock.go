package tracker

import (
	"context"
	"hash/maphash"
	"slices"

	"tallyman/registry/journal"
	"tallyman/registry/logging"
)

// lock takes the locks of the manifest and of the tag in m, or of the one that it has, and of other tags
// of the repository, within this process and, with Options.Lock, among all processes. alone is false if
// the shared locks could not be taken. If unlock finds that a shared lock was lost, m is reconciled again.
func (t *Tracker) lock(ctx context.Context, m journal.Entry, tags ...string) (unlock func(), alone bool) {
	var manifests, tagKeys []string
	if m.Digest != "" {
		manifests = []string{m.Repository + "@" + m.Digest.String()}
	}
	if m.Tag != "" {
		tags = append(tags, m.Tag)
	}
	for _, tag := range tags {
		tagKeys = append(tagKeys, m.Repository+":"+tag)
	}
	freeManifest := t.manifestLocks.lock(manifests...)
	freeTags := t.tagLocks.lock(tagKeys...) // after that of a manifest
	free := func() {
		freeTags()
		freeManifest()
	}
	keys := slices.Concat(manifests, tagKeys)
	if t.options.Lock == nil {
		return free, true
	}
	freeAll, err := t.options.Lock(ctx, keys...)
	if err != nil {
		logging.For(ctx).Warn("lock not taken, change requeued", "keys", keys, "err", err)
		return free, false
	}
	return func() {
		if !freeAll() {
			ctx, cancel := detached(ctx)
			defer cancel()
			logging.For(ctx).Warn("lock lost while held, reconciling again", "keys", keys)
			t.requeue(ctx, m)
		}
		free()
	}, true
}

// gate is a lock that may be held while something outside is waited for. Tests with a simulated clock
// (testing/synctest) know that who waits for it waits; of a sync.Mutex they do not. Create it with
// newGate.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

func (g gate) lock() (unlock func()) {
	g <- struct{}{}
	return func() { <-g }
}

// keyedLock is a lock for each key; keys may share one.
type keyedLock struct {
	seed  maphash.Seed
	locks []gate
}

func newKeyedLock() keyedLock {
	k := keyedLock{seed: maphash.MakeSeed()}
	for range 256 {
		k.locks = append(k.locks, newGate())
	}
	return k
}

// lock takes the locks of all keys, in an order that is the same for everybody.
func (k keyedLock) lock(keys ...string) (unlock func()) {
	var places []int
	for _, key := range keys {
		places = append(places, int(maphash.String(k.seed, key)%uint64(len(k.locks))))
	}
	slices.Sort(places)
	var taken []func()
	for _, place := range slices.Compact(places) {
		taken = append(taken, k.locks[place].lock())
	}
	return func() {
		for _, free := range taken {
			free()
		}
	}
}
