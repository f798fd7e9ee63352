package registry

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestLock: each change is made under the lock that all processes share. Without
// it the change is made all the same, and looked at again once it can be had.
func TestLock(t *testing.T) {
	h := newHouse(t, Defer)
	var taken, held int
	free := true
	kept := true
	h.recorder.options.Lock = func(context.Context, string) (func() bool, error) {
		if !free {
			return nil, errors.New("taken")
		}
		taken++
		held++
		return func() bool { held--; return kept }, nil
	}
	one := h.mustPush("a", "v1", "one")
	if taken != 2 || held != 0 { // the manifest's, and the tag's
		t.Errorf("a push took %d locks and kept %d", taken, held)
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
	if left := h.recorder.drain(t.Context()); left == 0 {
		t.Error("the drain needs no lock")
	}
	free = true
	if left := h.recorder.drain(t.Context()); left != 0 || h.entries() != 0 || held != 0 {
		t.Errorf("with the lock %d are left, %d entries, %d locks are held", left, h.entries(), held)
	}
	kept = false
	h.mustPush("a", "v1", "three")
	if n := h.entries(); n == 0 {
		t.Error("no entries for a push whose locks were lost meanwhile")
	}
}

// TestBackfillOutage: a store that is away while a backfill is due makes no entry
// for each manifest; the backfill begins when the store is there.
func TestBackfillOutage(t *testing.T) {
	h := newHouse(t, Defer)
	manifest := h.mustPush("a", "v1", "one")
	if err := h.writer.Remove(t.Context(), "a", manifest); err != nil { // as a loss of the store does
		t.Fatal(err)
	}
	h.store.down.Store(true)
	h.recorder.backfill(t.Context())
	if n := h.entries(); n != 0 || !h.recorder.lost.Load() {
		t.Errorf("%d entries, and the backfill is due again: %v", n, h.recorder.lost.Load())
	}
	h.recorder.lost.Store(false)
	h.store.down.Store(false)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		h.recorder.Run(ctx, false)
		close(done)
	}()
	h.recorder.Backfill()
	for range 500 {
		if h.lives(manifest) == "a a:v1" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	<-done
	if got := h.lives(manifest); got != "a a:v1" {
		t.Errorf("after Backfill: %q", got)
	}
}
