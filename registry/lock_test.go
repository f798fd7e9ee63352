package registry

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/registry/journal"
	"tallyman/registry/resync"
	"tallyman/registry/tracker"
	"tallyman/signatures"
	"tallyman/signatures/signtest"
	ourstorage "tallyman/storage"
)

// unlocking is a lock that is given back by a function.
type unlocking func() (kept bool)

// Unlock implements storage.Lock.
func (u unlocking) Unlock() bool { return u() }

// TestLock: each change is made under the lock that all processes share. Without
// it the change is made all the same, and looked at again once it can be had.
func TestLock(t *testing.T) {
	var taken, held atomic.Int64 // a drain takes locks at the same time
	free := true
	kept := true
	h := newHouseWith(t, tracker.Options{Lock: func(context.Context, []string, ...string) (ourstorage.Lock, map[string]*ourstorage.Entry, error) {
		if !free {
			return nil, nil, errors.New("taken")
		}
		taken.Add(1)
		held.Add(1)
		return unlocking(func() bool { held.Add(-1); return kept }), nil, nil
	}}, nil)
	one := h.mustPush("a", "v1", "one")
	if taken.Load() != 2 || held.Load() != 0 { // the manifest's, and the tag's
		t.Errorf("a push took %d locks and kept %d", taken.Load(), held.Load())
	}
	free = false
	two := h.mustPush("a", "v1", "two")
	if err := h.remove("a", one); err != nil {
		t.Fatal(err)
	}
	if h.lives(two) != "a a:v1" || h.lives(one) != "gone" {
		t.Errorf("without the lock: %q and %q", h.lives(one), h.lives(two))
	}
	if n := h.entries(); n < 3 {
		t.Errorf("%d entries for a push, a tag and a deletion without the lock", n)
	}
	if left := h.tracker.Drain(t.Context()); left == 0 {
		t.Error("the drain needs no lock")
	}
	free = true
	if left := h.tracker.Drain(t.Context()); left != 0 || h.entries() != 0 || held.Load() != 0 {
		t.Errorf("with the lock %d are left, %d entries, %d locks are held", left, h.entries(), held.Load())
	}
	kept = false
	h.mustPush("a", "v1", "three")
	if n := h.entries(); n == 0 {
		t.Error("no entries for a push whose locks were lost meanwhile")
	}
}

// TestResyncOutage: a store that is away while a resync is due makes no entry
// for each manifest; the resync begins when the store is there. It begins, too, when the store
// tells that it has lost something.
func TestResyncOutage(t *testing.T) {
	lost := make(chan struct{}, 1)
	h := newHouse(t, tracker.Defer)
	image := h.mustPush("a", "v1", "one")
	lose := func() { // as a loss of the store does
		t.Helper()
		if _, err := h.catalog.Remove(t.Context(), "a", image); err != nil {
			t.Fatal(err)
		}
	}
	comesBack := func(why string) {
		t.Helper()
		for range 500 {
			if h.lives(image) == "a a:v1" {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("%s: %q", why, h.lives(image))
	}
	lose()
	h.store.down.Store(true)
	h.run(resync.Options{Lost: lost})
	time.Sleep(100 * time.Millisecond) // the longer, the surer is it that it has begun
	if n := h.entries(); n != 0 {
		t.Errorf("%d entries", n)
	}
	h.store.down.Store(false)
	comesBack("after the outage")
	lose()
	lost <- struct{}{}
	comesBack("after the store has told of a loss")
}

// outsideOfLocks is a Verifier that fails the test when it is called under a lock.
type outsideOfLocks struct {
	rest.Verifier
	t     *testing.T
	held  *atomic.Int64
	calls int
}

func (v *outsideOfLocks) Verify(ctx context.Context, r *rest.VerifyRequest) *rest.Verdict {
	v.calls++
	if v.held.Load() != 0 {
		v.t.Error("signatures are verified under a lock")
	}
	return v.Verifier.Verify(ctx, r)
}

// TestVerifiedOutsideLocks: whatever changes signatures, or an Image that has some, verifies them
// after the lock is free, and records the result.
func TestVerifiedOutsideLocks(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	var held atomic.Int64
	verifier := &outsideOfLocks{t: t, held: &held}
	h := newHouseWith(t, tracker.Options{Lock: func(context.Context, []string, ...string) (ourstorage.Lock, map[string]*ourstorage.Entry, error) {
		held.Add(1)
		return unlocking(func() bool { held.Add(-1); return true }), nil, nil
	}}, func(backend ourstorage.Backend) rest.Verifier {
		verifier.Verifier = newVerifier(t, key)(backend)
		return verifier
	})
	name := h.mustPush("a", "v1", "one")
	bundle := signtest.Referrer(name, key.Bundle(signtest.Statement(name, signatures.PredicateCosignSign, nil)))
	classic := signtest.Classic(key.Cosign(signtest.CosignPayload(name, "registry.example.com/a", nil)))
	for _, step := range []struct {
		name    string
		do      func() error
		trusted string
	}{
		{"push a signature", func() error { return h.pushArtifact("a", "", bundle) }, "a"},
		{"tag the image", func() error { h.mustPush("a", "v2", "one"); return nil }, "a"},
		{"push the image elsewhere", func() error { h.mustPush("b", "v1", "one"); return nil }, "a,b"},
		{"push a signature's tag", func() error { return h.pushArtifact("a", signtest.ClassicTag(name), classic) }, "a,b"},
		{"delete a signature", func() error { return h.remove("a", bundle.Digest) }, "a"}, // the other is for that repository
		{"delete the image elsewhere", func() error { return h.remove("b", name) }, "a"},
		{"reconcile", func() error { return h.tracker.Reconcile(t.Context(), "a", name, "") }, "a"},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		image, err := h.catalog.Get(t.Context(), name)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := image.Annotations[rules.AnnotationTrusted]; got != step.trusted {
			t.Errorf("%s: trusted in %q, want %q", step.name, got, step.trusted)
		}
		if n := h.entries(); n != 0 || held.Load() != 0 {
			t.Errorf("%s: %d entries, %d locks", step.name, n, held.Load())
		}
	}
	if verifier.calls < 5 {
		t.Errorf("%d verifications", verifier.calls)
	}
}

// TestUnwritableJournal: while the store is there, a deletion needs no journal entry. A push that is
// rejected because the store is away leaves one for the manifest that the registry has taken.
func TestUnwritableJournal(t *testing.T) {
	h := newHouse(t, tracker.Reject)
	image := h.mustPush("a", "v1", "one")
	h.store.down.Store(true)
	if _, err := h.push("b", "v1", "two"); err == nil {
		t.Fatal("a push without the store is not rejected")
	}
	h.store.down.Store(false)
	if n := h.entries(); n != 1 {
		t.Errorf("%d entries", n)
	}
	if left := h.tracker.Drain(t.Context()); left != 0 {
		t.Errorf("%d are left", left)
	}
	repo := h.repository(h.plain, "b")
	var held []string
	if err := tracker.EachManifest(t.Context(), repo, func(d digest.Digest) error {
		held = append(held, h.lives(d))
		return nil
	}); err != nil || !slices.Equal(held, []string{"b"}) {
		t.Errorf("the manifests of a rejected push: %v, %v", held, err)
	}
	if err := h.driver.Delete(t.Context(), journal.Root); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.PutContent(t.Context(), journal.Root, []byte("in the way of the journal")); err != nil {
		t.Fatal(err)
	}
	if err := h.remove("a", image); err != nil || h.lives(image) != "gone" {
		t.Errorf("a deletion without the journal: %v, it lives in %q", err, h.lives(image))
	}
	other := h.storeManifest("c", `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`) // nothing notes it
	h.store.down.Store(true)
	if err := h.remove("c", other); err == nil {
		t.Error("a deletion that can be noted nowhere is not refused")
	}
}
