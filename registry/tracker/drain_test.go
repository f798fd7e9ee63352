package tracker

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/registry/journal"
	"tallyman/signatures"
	"tallyman/storage/memory"
)

// newTracker returns a Tracker of an empty registry.
func newTracker(t *testing.T) *Tracker {
	t.Helper()
	backend, d := memory.New(memory.Options{}), inmemory.New()
	images, err := rest.NewImages(backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	namespace, err := storage.NewRegistry(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Referrers: referrers.NewStore(backend), SignatureLimits: signatures.Limits{Content: 1000, PerImage: 10}}
	o.Catalog = catalog.New(catalog.Options{Backend: backend, Images: images, Referrers: o.Referrers})
	return New(namespace, d, o)
}

// TestDrainOrder: of many entries the newest are handled first, and those that came meanwhile before
// the others. Several about one thing are one change.
func TestDrainOrder(t *testing.T) {
	tr, ctx := newTracker(t), t.Context()
	add := func(number int, tag string) {
		t.Helper()
		for range number {
			if _, err := tr.journal.Add(ctx, journal.Entry{Repository: "app", Tag: tag}); err != nil {
				t.Fatal(err)
			}
		}
	}
	left := func() (tags []string) {
		t.Helper()
		files, err := tr.journal.Files(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			m, _, err := tr.journal.Read(ctx, file)
			if err != nil {
				t.Fatal(err)
			}
			if len(tags) == 0 || tags[len(tags)-1] != m.Tag {
				tags = append(tags, m.Tag)
			}
		}
		return tags
	}
	add(drainChunk+1, "oldest")
	add(drainChunk, "newer")
	for i, want := range []string{"257 [oldest]", "257 [oldest]", "1 [oldest]", "0 []"} {
		number, more := tr.drain(ctx, delays{}, time.Nanosecond)
		if got := fmt.Sprint(number, left()); got != want || more != (number > 0) {
			t.Errorf("left are %s, want %s; more to come: %v", got, want, more)
		}
		if i == 0 {
			add(drainChunk, "newest")
		}
	}
	add(1, "last")
	if number := tr.Drain(ctx); number != 0 {
		t.Errorf("%d are left", number)
	}
}

// TestDelays: an entry that fails is tried again later and later.
func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, start := delays{}, time.Now()
		var tries []time.Duration
		for time.Since(start) < 4*time.Minute {
			if len(d.due([]string{"a"})) == 1 {
				tries = append(tries, time.Since(start))
				d.failed("a", time.Minute)
			}
			time.Sleep(time.Second)
		}
		if got, want := fmt.Sprint(tries), "[0s 1s 3s 7s 15s 31s 1m3s 2m3s 3m3s]"; got != want {
			t.Errorf("tried after %s, want %s", got, want)
		}
		if d.due(nil); len(d) != 0 {
			t.Error("an entry that is gone is remembered")
		}
	})
}
