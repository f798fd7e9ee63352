package tracker

import (
	"context"
	"hash/maphash"
	"slices"

	"tallyman/registry/journal"
	"tallyman/registry/logging"
	"tallyman/storage"
)

// held are locks that a change has.
type held struct {
	// alone is false if those that all processes share could not be taken.
	alone bool
	free  func() // of this process
	// shared are those of all processes, nil for none, and read are entries that were read under them.
	shared storage.Lock
	read   map[string]*storage.Entry
	lost   func() // called if a shared lock was lost
}

// lock takes the locks of the manifest and of the tag in m, or of the one that it has, within this process
// and, with Options.Lock, among all processes. If it finds in the end that a shared lock was lost, m is
// reconciled again.
func (t *Tracker) lock(ctx context.Context, m journal.Entry) *held { return t.lockAndRead(ctx, m, nil) }

// lockAndRead is lock, also of other tags of the repository, and reads the entries under keys with the shared
// locks.
func (t *Tracker) lockAndRead(ctx context.Context, m journal.Entry, read []string, tags ...string) *held {
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
	h := &held{alone: true, free: func() {
		freeTags()
		freeManifest()
	}}
	if t.options.Lock == nil {
		return h
	}
	keys := slices.Concat(manifests, tagKeys)
	var err error
	if h.shared, h.read, err = t.options.Lock(ctx, read, keys...); err != nil {
		logging.For(ctx).Warn("lock not taken, change requeued", "keys", keys, "err", err)
		h.alone, h.shared = false, nil
		return h
	}
	h.lost = func() {
		ctx, cancel := detached(ctx)
		defer cancel()
		logging.For(ctx).Warn("lock lost while held, reconciling again", "keys", keys)
		t.requeue(ctx, m)
	}
	return h
}

// unlock gives the locks back.
func (h *held) unlock() {
	if h.shared != nil && !h.shared.Unlock() {
		h.lost()
	}
	h.free()
}

// first returns a context for the first change under the locks, which stay.
func (h *held) first(ctx context.Context) context.Context {
	return storage.WithLock(ctx, nil, h.read)
}

// last returns a context for the last change under the locks, one commit, which gives the shared ones back.
func (h *held) last(ctx context.Context) context.Context {
	if h.shared == nil {
		return ctx
	}
	return storage.WithLock(ctx, h.shared, h.read)
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
