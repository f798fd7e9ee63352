package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/registry/journal"
	"tallyman/registry/resync"
	"tallyman/registry/tracker"
	"tallyman/signatures"
	ourstorage "tallyman/storage"
	"tallyman/storage/bolt"
)

// unreliable is a store that can be made to fail, and counts commits.
type unreliable struct {
	ourstorage.Backend
	down    atomic.Bool
	commits atomic.Int64
}

var errDown = errors.New("down")

func (u *unreliable) Commit(ctx context.Context, m ...ourstorage.Mutation) (*ourstorage.CommitResult, error) {
	if u.down.Load() {
		return nil, errDown
	}
	u.commits.Add(1)
	return u.Backend.Commit(ctx, m...)
}

func (u *unreliable) Window(ctx context.Context) (ourstorage.Window, error) {
	if u.down.Load() {
		return ourstorage.Window{}, errDown
	}
	return u.Backend.Window(ctx)
}

// house is a registry with the middleware in it, and a real store.
type house struct {
	t         *testing.T
	store     *unreliable
	images    *rest.Images
	catalog   *catalog.Catalog
	tracker   *tracker.Tracker
	journal   *journal.Journal
	namespace distribution.Namespace
	driver    driver.StorageDriver
	plain     distribution.Namespace // the same storage without the middleware
}

func newHouse(t *testing.T, policy tracker.FailurePolicy) *house {
	t.Helper()
	return newHouseWith(t, tracker.Options{OnStoreFailure: policy}, nil)
}

// newHouseWith is newHouse with options; verifier is nil, or makes the Verifier on a store.
func newHouseWith(t *testing.T, o tracker.Options, verifier func(ourstorage.Backend) rest.Verifier) *house {
	t.Helper()
	backend, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &house{t: t, store: &unreliable{Backend: backend}}
	var v rest.Verifier
	if verifier != nil {
		v = verifier(h.store)
	}
	images, err := rest.NewImages(h.store, v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	h.images = images
	o.Referrers = referrers.NewStore(h.store)
	h.catalog = catalog.New(catalog.Options{Backend: h.store, Images: images, Referrers: o.Referrers})
	o.Catalog, o.Host = h.catalog, "registry.example.com"
	o.SignatureLimits = signatures.Limits{Content: signatures.DefaultContentLimit, PerImage: signatures.DefaultPerImage}
	// The driver in memory has data races where clients push one blob at once.
	d := filesystem.New(filesystem.DriverParameters{RootDirectory: t.TempDir(), MaxThreads: 100})
	h.driver, h.journal = d, journal.New(d)
	if h.plain, err = storage.NewRegistry(t.Context(), d, storage.EnableDelete); err != nil {
		t.Fatal(err)
	}
	h.namespace, err = newNamespace(t.Context(), h.plain, d, map[string]any{trackerOption: newTracker(func(inner distribution.Namespace, d driver.StorageDriver) *tracker.Tracker {
		h.tracker = tracker.New(inner, d, o)
		return h.tracker
	})})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *house) repository(n distribution.Namespace, name string) distribution.Repository {
	h.t.Helper()
	named, err := reference.WithName(name)
	if err != nil {
		h.t.Fatal(err)
	}
	repo, err := n.Repository(h.t.Context(), named)
	if err != nil {
		h.t.Fatal(err)
	}
	return repo
}

// push pushes an image with its name in the config, as the registry's handler does: first the
// manifest, then the tag.
func (h *house) push(name, tag, who string) (digest.Digest, error) {
	ctx := h.t.Context()
	repo := h.repository(h.namespace, name)
	config, err := repo.Blobs(ctx).Put(ctx, imagespec.MediaTypeImageConfig, []byte(fmt.Sprintf(`{"os":"linux","architecture":"amd64","author":%q}`, who)))
	if err != nil {
		return "", err
	}
	config.MediaType = imagespec.MediaTypeImageConfig
	manifest, err := ocischema.FromStruct(ocischema.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imagespec.MediaTypeImageManifest, Config: config, Layers: []imagespec.Descriptor{},
	})
	if err != nil {
		return "", err
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		return "", err
	}
	stored, err := manifests.Put(ctx, manifest, distribution.WithTag(tag))
	if err != nil {
		return stored, err
	}
	return stored, repo.Tags(ctx).Tag(ctx, tag, imagespec.Descriptor{Digest: stored})
}

func (h *house) mustPush(name, tag, who string) digest.Digest {
	h.t.Helper()
	stored, err := h.push(name, tag, who)
	if err != nil {
		h.t.Fatal(err)
	}
	return stored
}

func (h *house) remove(name string, d digest.Digest) error {
	manifests, err := h.repository(h.namespace, name).Manifests(h.t.Context())
	if err != nil {
		return err
	}
	return manifests.Delete(h.t.Context(), d)
}

// lives returns where an Image says it lives, "gone" if there is none.
func (h *house) lives(d digest.Digest) string {
	h.t.Helper()
	image, err := h.catalog.Get(h.t.Context(), d)
	return imagetest.Places(h.t, image, err)
}

// resync compares the registry with its records.
func (h *house) resync() {
	h.t.Helper()
	if _, err := h.resyncer(resync.Options{}).Once(h.t.Context(), records.ResyncRequest{}); err != nil {
		h.t.Fatal(err)
	}
}

// resyncer returns a Resyncer with options.
func (h *house) resyncer(o resync.Options) *resync.Resyncer {
	o.Tracker, o.Grace, o.Removals = h.tracker, time.Hour, 10
	return resync.New(o)
}

// run runs the deferred work of a house until the test ends, or stop is called.
func (h *house) run(o resync.Options) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { h.tracker.Run(ctx) })
	done.Go(func() { h.resyncer(o).Run(ctx, o.Lost != nil) })
	stop = func() {
		cancel()
		done.Wait()
	}
	h.t.Cleanup(stop)
	return stop
}

func (h *house) entries() int {
	h.t.Helper()
	all, err := h.journal.Files(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return len(all)
}

func TestMiddleware(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	one := h.mustPush("a", "v1", "one")
	if got := h.lives(one); got != "a a:v1" {
		t.Errorf("after a push: %q", got)
	}
	image, err := h.catalog.Get(t.Context(), one)
	if err != nil || image.DockerImageReference != "registry.example.com/a@"+one.String() || rules.Metadata(image).Author != "one" {
		t.Errorf("the Image is %+v, %v", image, err)
	}
	two := h.mustPush("a", "v1", "two")
	h.mustPush("b", "x", "one")
	if got := h.lives(one) + "; " + h.lives(two); got != "a b b:x; a a:v1" {
		t.Errorf("after two more: %q", got)
	}
	if err := h.repository(h.namespace, "a").Tags(t.Context()).Untag(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if err := h.remove("a", one); err != nil {
		t.Fatal(err)
	}
	if got := h.lives(one) + "; " + h.lives(two); got != "b b:x; a" {
		t.Errorf("after an untag and a deletion: %q", got)
	}
	if err := h.remove("b", one); err != nil || h.lives(one) != "gone" {
		t.Errorf("after the last deletion: %q, %v", h.lives(one), err)
	}
	if err := h.remove("b", one); err == nil {
		t.Error("a manifest that is gone was deleted")
	}
	if n := h.entries(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// TestDeferred: all changes while the store is down are made good by one drain.
func TestDeferred(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	stays, moves, goes := h.mustPush("a", "stays", "stays"), h.mustPush("a", "tag", "moves"), h.mustPush("a", "goes", "goes")
	h.store.down.Store(true)
	fresh := h.mustPush("a", "tag", "new")
	h.mustPush("b", "copy", "stays")
	if err := h.remove("a", goes); err != nil {
		t.Fatal(err)
	}
	if n := h.entries(); n < 3 {
		t.Errorf("%d entries for a push, a copy and a deletion", n)
	}
	if left := h.tracker.Drain(t.Context()); left == 0 {
		t.Error("with the store down, nothing was left to drain")
	}
	h.store.down.Store(false)
	if left := h.tracker.Drain(t.Context()); left != 0 || h.entries() != 0 {
		t.Errorf("with the store back, %d are left, %d entries", left, h.entries())
	}
	for d, want := range map[digest.Digest]string{stays: "a b a:stays b:copy", moves: "a", goes: "gone", fresh: "a a:tag"} {
		if got := h.lives(d); got != want {
			t.Errorf("%s lives in %q, want %q", d, got, want)
		}
	}
}

func TestRejected(t *testing.T) {
	h := newHouse(t, tracker.Reject)
	h.store.down.Store(true)
	_, err := h.push("a", "v1", "one")
	var failure errcode.Error
	if !errors.As(err, &failure) || failure.Code != errcode.ErrorCodeUnavailable || !strings.HasSuffix(failure.Message, "could not be recorded; try again") {
		t.Errorf("a push with the store down: %v", err)
	}
	h.store.down.Store(false)
	if one := h.mustPush("a", "v1", "one"); h.lives(one) != "a a:v1" {
		t.Errorf("after the retry: %q", h.lives(one))
	}
}

// TestConvergence has many clients push, move tags and delete at once, with a store that comes
// and goes; after a drain every Image agrees with the registry.
func TestConvergence(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	repositories, tagNames := []string{"a", "b"}, []string{"x", "y", "z"}
	var mu sync.Mutex
	pushed := map[digest.Digest]bool{}
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(worker)))
			for range 60 {
				name, tag := repositories[random.IntN(2)], tagNames[random.IntN(3)]
				switch random.IntN(5) {
				case 0:
					_ = h.repository(h.namespace, name).Tags(t.Context()).Untag(t.Context(), tag) // often there is none
				case 1:
					mu.Lock()
					var some digest.Digest
					for some = range pushed {
						break
					}
					mu.Unlock()
					if some != "" {
						_ = h.remove(name, some) // often it is not there
					}
				case 2:
					h.store.down.Store(random.IntN(3) == 0)
				default:
					d, err := h.push(name, tag, fmt.Sprint(random.IntN(5)))
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					pushed[d] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	h.store.down.Store(false)
	if left := h.tracker.Drain(t.Context()); left != 0 {
		t.Fatalf("%d changes cannot be recorded", left)
	}
	for d := range pushed {
		if got, want := h.lives(d), h.truth(d, repositories, tagNames); got != want {
			t.Errorf("%s lives in %q, the registry says %q", d, got, want)
		}
	}
}

// truth asks the registry where a manifest is.
func (h *house) truth(d digest.Digest, repositories, tagNames []string) string {
	var in, tagged []string
	for _, name := range repositories {
		repo := h.repository(h.plain, name)
		manifests, err := repo.Manifests(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if exists, err := manifests.Exists(h.t.Context(), d); err != nil || !exists {
			continue
		}
		in = append(in, name)
		for _, tag := range tagNames {
			if to, err := repo.Tags(h.t.Context()).Get(h.t.Context(), tag); err == nil && to.Digest == d {
				tagged = append(tagged, name+":"+tag)
			}
		}
	}
	if len(in) == 0 {
		return "gone"
	}
	slices.Sort(tagged)
	return strings.Join(append(in, tagged...), " ")
}

// TestTagHolders: all tags of all Images, also of more than a page.
func TestTagHolders(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	const images = 520
	want := map[string]digest.Digest{}
	for i := range images {
		tag := fmt.Sprint("v", i)
		want["a:"+tag] = h.mustPush("a", tag, tag)
	}
	holders, err := h.catalog.ImagesByTag(t.Context())
	if err != nil || len(holders) != images {
		t.Fatalf("%d tags, want %d, %v", len(holders), images, err)
	}
	for tag, d := range want {
		if !slices.Equal(holders[tag], []digest.Digest{d}) {
			t.Errorf("%s is on %v, want %s", tag, holders[tag], d)
		}
	}
}

// TestTagBeforeManifest: a pull-through cache stores a tag before its manifest. The tag is on the
// Image once both are there.
func TestTagBeforeManifest(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	d := h.mustPush("b", "other", "one")
	tags := h.repository(h.namespace, "a").Tags(t.Context())
	if err := tags.Tag(t.Context(), "v1", imagespec.Descriptor{Digest: d}); err != nil {
		t.Fatal(err)
	}
	if n := h.entries(); n != 1 {
		t.Errorf("%d entries for a tag without its manifest", n)
	}
	h.mustPush("a", "v2", "one")
	if left := h.tracker.Drain(t.Context()); left != 0 || h.lives(d) != "a b a:v1 a:v2 b:other" {
		t.Errorf("%d left, it lives in %q", left, h.lives(d))
	}
}
