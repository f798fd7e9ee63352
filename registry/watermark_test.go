package registry

import (
	"context"
	"fmt"
	"testing"
)

// TestWatermark: a store that is behind its watermark has lost changes. Its revision is
// raised above the watermark, and the registry's content is recorded again.
func TestWatermark(t *testing.T) {
	h := newHouse(t, Defer)
	ctx := t.Context()
	if err := h.recorder.checkWatermark(ctx); err != nil || h.recorder.lost.Load() {
		t.Fatalf("without a watermark: lost %v, %v", h.recorder.lost.Load(), err)
	}
	manifest := h.mustPush("a", "v1", "one")
	revision, err := h.recorder.storeWatermark(ctx, 0)
	if err != nil || revision == 0 {
		t.Fatal(revision, err)
	}
	if again, err := h.recorder.storeWatermark(ctx, revision); err != nil || again != revision {
		t.Errorf("an unchanged watermark: %d, %v", again, err)
	}
	if err := h.recorder.checkWatermark(ctx); err != nil || h.recorder.lost.Load() {
		t.Errorf("a store that has everything: lost %v, %v", h.recorder.lost.Load(), err)
	}
	ahead := revision + 1e9
	if err := h.recorder.journal.driver.PutContent(ctx, watermarkFile, fmt.Appendf(nil, `{"revision":%d}`, ahead)); err != nil {
		t.Fatal(err)
	}
	h.store.down.Store(true)
	if err := h.recorder.checkWatermark(ctx); err == nil {
		t.Error("compared without the store")
	}
	h.store.down.Store(false)
	if err := h.writer.Remove(ctx, "a", manifest); err != nil { // the lost change
		t.Fatal(err)
	}
	if err := h.recorder.checkWatermark(ctx); err != nil || !h.recorder.lost.Load() {
		t.Fatalf("a store that is behind: lost %v, %v", h.recorder.lost.Load(), err)
	}
	if revision, err := h.writer.Revision(ctx); err != nil || revision <= ahead {
		t.Errorf("the store goes on at %d, %v, want more than %d", revision, err, ahead)
	}
	h.recorder.backfill(context.WithoutCancel(ctx))
	if got := h.lives(manifest); got != "a a:v1" {
		t.Errorf("after the backfill: %q", got)
	}
	if err := h.recorder.checkWatermark(ctx); err != nil {
		t.Error(err)
	}
	if err := h.recorder.journal.driver.PutContent(ctx, watermarkFile, []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	if err := h.recorder.checkWatermark(ctx); err != nil {
		t.Errorf("a malformed watermark: %v", err)
	}
}
