package tracker

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	ourstorage "tallyman/storage"
	"tallyman/storage/memory"
)

// TestJournal: other files in the place of entries are reported, and do not hide entries.
func TestJournal(t *testing.T) {
	p := NewJournal(inmemory.New())
	if all, err := p.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("without any: %v, %v", all, err)
	}
	m := Entry{Repository: "team/app", Digest: digest.FromString("x"), Host: "h"}
	first, err := p.Add(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.Add(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.driver.PutContent(t.Context(), journalRoot+"/junk", []byte("{")); err != nil {
		t.Fatal(err)
	}
	all, err := p.List(t.Context())
	if err == nil || len(all) != 2 || all[0].about() != m.about() || all[0].Host != "h" {
		t.Errorf("%v, %v", all, err)
	}
	if !driver.PathRegexp.MatchString(first.file) {
		t.Errorf("%s is not a path that drivers take", first.file)
	}
	if err := errors.Join(p.Remove(t.Context(), first), p.Remove(t.Context(), first)); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if all, _ := p.List(t.Context()); len(all) != 1 || all[0] != second {
		t.Errorf("the other entry about the same thing is gone: %v", all)
	}
}

// TestKinds: the log names the kind of a push.
func TestKinds(t *testing.T) {
	image := &imagev1.Image{DockerImageManifestMediaType: "a/b"}
	if got := kindOf(image); got != "a/b" {
		t.Error(got)
	}
	image.Annotations = map[string]string{"tallyman.dev/artifact-type": "c/d"}
	if got := kindOf(image); got != "c/d" {
		t.Error(got)
	}
}

// outage is a store that can be made to fail.
type outage struct {
	ourstorage.Backend
	down bool
}

func (o *outage) Window(ctx context.Context) (ourstorage.Window, error) {
	if o.down {
		return ourstorage.Window{}, errors.New("down")
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
	r := New(nil, inmemory.New(), Options{Catalog: records})
	if err := r.checkWatermark(ctx); err != nil || r.lost.Load() {
		t.Fatalf("without a watermark: lost %v, %v", r.lost.Load(), err)
	}
	if _, err := store.Commit(ctx, ourstorage.Mutation{Operation: ourstorage.Put, Key: "/x", Value: ourstorage.Body([]byte("x"))}); err != nil {
		t.Fatal(err)
	}
	revision, err := r.storeWatermark(ctx, 0)
	if err != nil || revision == 0 {
		t.Fatal(revision, err)
	}
	if again, err := r.storeWatermark(ctx, revision); err != nil || again != revision {
		t.Errorf("an unchanged watermark: %d, %v", again, err)
	}
	if err := r.checkWatermark(ctx); err != nil || r.lost.Load() {
		t.Errorf("a store that has everything: lost %v, %v", r.lost.Load(), err)
	}
	ahead := revision + 1e9
	if err := r.journal.driver.PutContent(ctx, watermarkFile, fmt.Appendf(nil, `{"revision":%d}`, ahead)); err != nil {
		t.Fatal(err)
	}
	store.down = true
	if err := r.checkWatermark(ctx); err == nil {
		t.Error("compared without the store")
	}
	store.down = false
	if err := r.checkWatermark(ctx); err != nil || !r.lost.Load() {
		t.Fatalf("a store that is behind: lost %v, %v", r.lost.Load(), err)
	}
	if revision, err := records.Revision(ctx); err != nil || revision <= ahead {
		t.Errorf("the store goes on at %d, %v, want more than %d", revision, err, ahead)
	}
	if err := r.checkWatermark(ctx); err != nil {
		t.Error(err)
	}
	if err := r.journal.driver.PutContent(ctx, watermarkFile, []byte("no JSON")); err != nil {
		t.Fatal(err)
	}
	if err := r.checkWatermark(ctx); err != nil {
		t.Errorf("a malformed watermark: %v", err)
	}
}
