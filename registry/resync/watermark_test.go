package resync

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/registry/tracker"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// outage is a store that can be made to fail.
type outage struct {
	storage.Backend
	down bool
}

func (o *outage) Window(ctx context.Context) (storage.Window, error) {
	if o.down {
		return storage.Window{}, errors.New("down")
	}
	return o.Backend.Window(ctx)
}

// TestWatermark: a store that is behind its watermark has lost changes. Its revision is
// raised above the watermark, and the registry's content is to be recorded again.
func TestWatermark(t *testing.T) {
	ctx := t.Context()
	store := &outage{Backend: memory.New(memory.Options{})}
	images, err := rest.NewImages(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	records := catalog.New(catalog.Options{Backend: store, Images: images, Referrers: referrers.NewStore(store)})
	r := New(Options{Tracker: tracker.New(nil, inmemory.New(), tracker.Options{Catalog: records})})
	if err := r.checkWatermark(ctx); err != nil || r.wanted.Load() {
		t.Fatalf("without a watermark: lost %v, %v", r.wanted.Load(), err)
	}
	if _, err := store.Commit(ctx, storage.Mutation{Operation: storage.Put, Key: "/x", Value: storage.Body([]byte("x"))}); err != nil {
		t.Fatal(err)
	}
	revision, err := r.storeWatermark(ctx, 0)
	if err != nil || revision == 0 {
		t.Fatal(revision, err)
	}
	if again, err := r.storeWatermark(ctx, revision); err != nil || again != revision {
		t.Errorf("an unchanged watermark: %d, %v", again, err)
	}
	if err := r.checkWatermark(ctx); err != nil || r.wanted.Load() {
		t.Errorf("a store that has everything: lost %v, %v", r.wanted.Load(), err)
	}
	ahead := revision + 1e9
	if err := r.tracker.Driver().PutContent(ctx, watermarkFile, fmt.Appendf(nil, `{"revision":%d}`, ahead)); err != nil {
		t.Fatal(err)
	}
	store.down = true
	if err := r.checkWatermark(ctx); err == nil {
		t.Error("compared without the store")
	}
	store.down = false
	if err := r.checkWatermark(ctx); err != nil || !r.wanted.Load() {
		t.Fatalf("a store that is behind: lost %v, %v", r.wanted.Load(), err)
	}
	if revision, err := records.Revision(ctx); err != nil || revision <= ahead {
		t.Errorf("the store goes on at %d, %v, want more than %d", revision, err, ahead)
	}
	if err := r.checkWatermark(ctx); err != nil {
		t.Error(err)
	}
	if err := r.tracker.Driver().PutContent(ctx, watermarkFile, []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	if err := r.checkWatermark(ctx); err != nil {
		t.Errorf("a malformed watermark: %v", err)
	}
}
