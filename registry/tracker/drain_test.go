package tracker

import (
	"context"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/registry/journal"
	"tallyman/signatures"
	"tallyman/storage/memory"
)

// full is a storage that can be full.
type full struct {
	driver.StorageDriver
	is bool
}

func (f *full) PutContent(ctx context.Context, file string, content []byte) error {
	if f.is {
		return driver.Error{DriverName: "full", Detail: &fs.PathError{Op: "write", Path: file, Err: syscall.ENOSPC}}
	}
	return f.StorageDriver.PutContent(ctx, file, content)
}

// newTracker returns a Tracker of an empty registry.
func newTracker(t *testing.T) (*Tracker, *full) {
	t.Helper()
	backend, d := memory.New(memory.Options{}), &full{StorageDriver: inmemory.New()}
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
	return New(namespace, d, o), d
}

// TestDrainOrder: of many entries the newest are handled first, and those that came meanwhile before
// the others. Several about one thing are one change.
func TestDrainOrder(t *testing.T) {
	tr, _ := newTracker(t)
	ctx := t.Context()
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

// TestFullStorage: an entry for which the storage has no room is written when it has, and until then
// the tags are not known.
func TestFullStorage(t *testing.T) {
	tr, d := newTracker(t)
	ctx, m := t.Context(), journal.Entry{Repository: "app", Digest: digest.FromString("x")}
	if err := tr.options.Catalog.Records().SetComplete(ctx); err != nil || !tr.HasAllTags(ctx) {
		t.Fatal("the tags of an empty registry are not known", err)
	}
	d.is = true
	if noted, err := tr.noteDeletion(ctx, m); err != nil || noted.IsStored() {
		t.Errorf("a full storage cannot be emptied: %v", err)
	}
	tr.requeue(ctx, m)
	for range 2 {
		if left := tr.Drain(ctx); left != 1 || tr.HasAllTags(ctx) {
			t.Errorf("%d left", left)
		}
	}
	d.is = false
	if left := tr.writeEntries(ctx); left != 0 || tr.HasAllTags(ctx) {
		t.Errorf("%d are not written", left)
	}
	if files, err := tr.journal.Files(ctx); len(files) != 1 || err != nil {
		t.Errorf("%v, %v", files, err)
	}
	if left := tr.Drain(ctx); left != 0 || !tr.HasAllTags(ctx) {
		t.Errorf("%d left at last", left)
	}
}
