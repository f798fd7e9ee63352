package registry

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/registry/resync"
	"tallyman/registry/tracker"
	"tallyman/signatures"
	ourstorage "tallyman/storage"
	"tallyman/storage/memory"
)

var modelSeeds = flag.Int("model.seeds", 12, "runs of TestModel in each mode")

// world outlives a process: it has the registry's storage, and the store.
type world struct {
	t      *testing.T
	dice   sync.Mutex // of random
	random *rand.Rand
	disk   driver.StorageDriver
	mu     sync.Mutex // of disk, which has data races
	store  ourstorage.Backend
	faulty atomic.Bool // the storage and the store fail now and then
	plain  distribution.Namespace
	*life
}

func (w *world) intN(n int) int {
	w.dice.Lock()
	defer w.dice.Unlock()
	return w.random.IntN(n)
}

// life is a process.
type life struct {
	world     *world
	left      atomic.Int64 // calls until it is killed; negative for never
	away      atomic.Bool  // the store is, for this process
	images    *rest.Images
	catalog   *catalog.Catalog
	namespace distribution.Namespace
	resyncer  *resync.Resyncer
	end       func()
}

var errKilled, errFault = errors.New("killed"), errors.New("no answer")

// call is one call of a process to something outside: it takes time, and fails at random, or because
// the process is dead. before and after say whether it fails instead of the effect, or in spite of it.
func (l *life) call(ctx context.Context) (before, after error) {
	r := l.world.intN(1000)
	late := time.Duration(l.world.intN(20)) * time.Millisecond
	left := l.left.Load()
	for left > 0 && !l.left.CompareAndSwap(left, left-1) {
		left = l.left.Load()
	}
	if left == 0 {
		return errKilled, nil
	}
	killed := left == 1
	switch {
	case killed && r%2 == 0: // it has died before it knew of the effect
		return nil, errKilled
	case killed:
		return errKilled, nil
	case ctx.Err() != nil || !l.world.faulty.Load():
		return ctx.Err(), nil
	case r < 10:
		return errFault, nil
	case r < 15:
		return nil, errFault
	case r < 17:
		late = 5 * time.Second
	}
	select {
	case <-time.After(late):
		return nil, nil
	case <-ctx.Done():
		return ctx.Err(), nil
	}
}

func do[T any](ctx context.Context, l *life, fn func() (T, error)) (result T, err error) {
	before, after := l.call(ctx)
	if before != nil {
		return result, before
	}
	result, err = fn()
	if after != nil {
		err = after
	}
	return result, err
}

// disk is the storage as a process sees it.
type disk struct {
	driver.StorageDriver
	life *life
}

func (d *disk) locked(ctx context.Context, fn func() error) error {
	_, err := do(ctx, d.life, func() (any, error) {
		d.life.world.mu.Lock()
		defer d.life.world.mu.Unlock()
		return nil, fn()
	})
	return err
}

func (d *disk) GetContent(ctx context.Context, path string) (content []byte, err error) {
	err = d.locked(ctx, func() (err error) { content, err = d.StorageDriver.GetContent(ctx, path); return err })
	return content, err
}

func (d *disk) PutContent(ctx context.Context, path string, content []byte) error {
	return d.locked(ctx, func() error { return d.StorageDriver.PutContent(ctx, path, content) })
}

func (d *disk) Reader(ctx context.Context, path string, offset int64) (reader io.ReadCloser, err error) {
	err = d.locked(ctx, func() (err error) { reader, err = d.StorageDriver.Reader(ctx, path, offset); return err })
	return reader, err
}

func (d *disk) Stat(ctx context.Context, path string) (info driver.FileInfo, err error) {
	err = d.locked(ctx, func() (err error) { info, err = d.StorageDriver.Stat(ctx, path); return err })
	return info, err
}

func (d *disk) List(ctx context.Context, path string) (names []string, err error) {
	err = d.locked(ctx, func() (err error) { names, err = d.StorageDriver.List(ctx, path); return err })
	return names, err
}

func (d *disk) Move(ctx context.Context, from, to string) error {
	return d.locked(ctx, func() error { return d.StorageDriver.Move(ctx, from, to) })
}

func (d *disk) Delete(ctx context.Context, path string) error {
	return d.locked(ctx, func() error { return d.StorageDriver.Delete(ctx, path) })
}

// remote is the store as a process sees it.
type remote struct {
	ourstorage.Backend
	life *life
}

func (r *remote) Commit(ctx context.Context, m ...ourstorage.Mutation) (*ourstorage.CommitResult, error) {
	return do(ctx, r.life, func() (*ourstorage.CommitResult, error) {
		if r.life.away.Load() {
			return nil, errFault
		}
		return r.Backend.Commit(ctx, m...)
	})
}

func (r *remote) Get(ctx context.Context, request ourstorage.GetRequest) (*ourstorage.GetResult, error) {
	return do(ctx, r.life, func() (*ourstorage.GetResult, error) {
		if r.life.away.Load() {
			return nil, errFault
		}
		return r.Backend.Get(ctx, request)
	})
}

func (r *remote) Window(ctx context.Context) (ourstorage.Window, error) {
	if r.life.away.Load() {
		return ourstorage.Window{}, errFault
	}
	return r.Backend.Window(ctx)
}

// begin starts a process.
func (w *world) begin() {
	l := &life{world: w}
	l.left.Store(-1)
	backend := &remote{w.store, l}
	images, err := rest.NewImages(backend, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	referring := referrers.NewStore(backend)
	l.images, l.catalog = images, catalog.New(catalog.Options{Backend: backend, Images: images, Referrers: referring})
	d := &disk{w.disk, l}
	plain, err := storage.NewRegistry(w.t.Context(), d, storage.EnableDelete)
	if err != nil {
		w.t.Fatal(err)
	}
	var lock ourstorage.LockFunc
	if w.intN(2) == 0 { // the store has locks, under which it reads
		lock = readingLock(backend)
	}
	var track *tracker.Tracker
	l.namespace, err = newNamespace(w.t.Context(), plain, d, map[string]any{trackerOption: newTracker(func(inner distribution.Namespace, d driver.StorageDriver) *tracker.Tracker {
		track = tracker.New(inner, d, tracker.Options{
			Catalog: l.catalog, Referrers: referring, Host: "registry.example.com", SignatureLimits: signatures.Limits{Content: 1000, PerImage: 10}, Lock: lock,
		})
		return track
	})})
	if err != nil {
		w.t.Fatal(err)
	}
	l.resyncer = resync.New(resync.Options{Tracker: track, Grace: time.Hour, Removals: 100, Period: 24 * time.Hour})
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { track.Run(ctx) })
	running.Go(func() { l.resyncer.Run(ctx, false) })
	l.end = func() {
		cancel()
		running.Wait()
		images.Close()
	}
	w.life = l
}

// restart ends the process, which is dead already or ends in order, and starts another.
func (w *world) restart() {
	w.end()
	w.begin()
}

var modelRepositories = []string{"a", "b", "team/c"}

// step makes one change as a client does, and returns whether it was acknowledged.
func (w *world) step() (what string, acknowledged bool) {
	repository, tag := modelRepositories[w.intN(3)], fmt.Sprint("v", w.intN(4))
	request := &tracker.Request{}
	ctx := tracker.WithRequest(context.WithValue(w.t.Context(), putNotesKey{}, &putNotes{}), request)
	defer func() { _ = request.End(ctx) }()
	h := &house{t: w.t, namespace: w.namespace}
	repo := h.repository(w.namespace, repository)
	held := slices.Sorted(maps.Keys(w.registry(repository).manifests))
	var err error
	switch kind := w.intN(10); {
	case kind < 5 || len(held) == 0: // of few contents, so that repositories share them, and a push may be a move
		what = "push " + repository + ":" + tag
		_, err = h.push(repository, tag, fmt.Sprint("content ", w.intN(6)))
	case kind < 6:
		what = "untag " + repository + ":" + tag
		err = repo.Tags(ctx).Untag(ctx, tag)
	case kind < 8:
		what = "tag " + repository + ":" + tag
		err = repo.Tags(ctx).Tag(ctx, tag, imagespec.Descriptor{Digest: held[w.intN(len(held))]})
	default:
		what = "delete from " + repository
		err = w.deleteManifest(ctx, repo, held[w.intN(len(held))])
	}
	return fmt.Sprint(what, ": ", err), err == nil
}

// deleteManifest deletes a manifest with its tags, as distribution's handler does.
func (w *world) deleteManifest(ctx context.Context, repo distribution.Repository, name digest.Digest) error {
	manifests, err := repo.Manifests(ctx)
	if err == nil {
		err = manifests.Delete(ctx, name)
	}
	if err != nil {
		return err
	}
	tags, err := repo.Tags(ctx).Lookup(ctx, imagespec.Descriptor{Digest: name})
	for _, tag := range tags {
		err = errors.Join(err, repo.Tags(ctx).Untag(ctx, tag))
	}
	return err
}

// contents are those of a repository.
type contents struct {
	manifests map[digest.Digest]bool
	tags      map[string]digest.Digest
}

// registry reads a repository from the storage itself.
func (w *world) registry(name string) contents {
	ctx, c := w.t.Context(), contents{map[digest.Digest]bool{}, map[string]digest.Digest{}}
	w.mu.Lock()
	defer w.mu.Unlock()
	repo, err := tracker.OpenRepository(ctx, w.plain, name)
	if err == nil {
		err = tracker.EachManifest(ctx, repo, func(d digest.Digest) error {
			c.manifests[d] = true
			return nil
		})
	}
	if err != nil {
		w.t.Fatal(err)
	}
	tags, _ := repo.Tags(ctx).All(ctx) // none of an unknown repository
	for _, tag := range tags {
		if to, err := repo.Tags(ctx).Get(ctx, tag); err == nil && c.manifests[to.Digest] {
			c.tags[tag] = to.Digest
		}
	}
	return c
}

// disagreements compares the records and Images with the registry.
func (w *world) disagreements() (all []string) {
	ctx, kept := w.t.Context(), records.New(records.Options{Backend: w.store})
	want := map[string][]string{} // the repositories and tags of each manifest
	for _, name := range modelRepositories {
		is, recorded := w.registry(name), contents{map[digest.Digest]bool{}, map[string]digest.Digest{}}
		err := errors.Join(kept.EachHolding(ctx, name, func(d digest.Digest, _ int64) error {
			recorded.manifests[d] = true
			return nil
		}), kept.EachTag(ctx, name, func(tag string, to digest.Digest, _ int64) error {
			recorded.tags[tag] = to
			return nil
		}))
		if err != nil {
			w.t.Fatal(err)
		}
		if !maps.Equal(is.manifests, recorded.manifests) {
			all = append(all, fmt.Sprintf("%s holds %v, recorded are %v", name, is.manifests, recorded.manifests))
		}
		if !maps.Equal(is.tags, recorded.tags) {
			all = append(all, fmt.Sprintf("%s has the tags %v, recorded are %v", name, is.tags, recorded.tags))
		}
		for d := range is.manifests {
			want[d.String()] = append(want[d.String()], name)
		}
		for tag, to := range is.tags {
			want[to.String()] = append(want[to.String()], name+":"+tag)
		}
	}
	images, err := rest.NewImages(w.store, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer images.Close()
	if err := images.Each(ctx, func(image *imagev1.Image) {
		got := append(rules.Repositories(image), rules.Tags(image)...)
		slices.Sort(got)
		slices.Sort(want[image.Name])
		if !slices.Equal(got, want[image.Name]) {
			all = append(all, fmt.Sprintf("the Image %s lives in %v, the manifest in %v", image.Name, got, want[image.Name]))
		}
		delete(want, image.Name)
	}); err != nil {
		w.t.Fatal(err)
	}
	for name, places := range want {
		all = append(all, fmt.Sprintf("there is no Image of %s in %v", name, places))
	}
	return all
}

// TestModel makes random changes while processes are killed, and, in one mode, the storage and the store
// fail and answer late. After kills alone the records agree with the registry within seconds of the next
// start; after faults they agree after a comparison at the latest.
func TestModel(t *testing.T) {
	former := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(former) })
	for _, faulty := range []bool{false, true} {
		for seed := range *modelSeeds {
			t.Run(fmt.Sprintf("faults %v, seed %d", faulty, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(uint64(seed), 1)), faulty) })
			})
		}
	}
}

func runModel(t *testing.T, random *rand.Rand, faulty bool) {
	w := &world{t: t, random: random, disk: inmemory.New(), store: memory.New(memory.Options{})}
	var err error
	if w.plain, err = storage.NewRegistry(t.Context(), w.disk); err != nil {
		t.Fatal(err)
	}
	w.begin()
	defer func() { w.end() }()
	if _, err := w.resyncer.Once(t.Context(), records.ResyncRequest{}); err != nil {
		t.Fatal(err)
	}
	var log []string
	for round := range 6 {
		w.faulty.Store(faulty)
		for range 20 {
			w.away.Store(faulty && w.intN(8) == 0)
			what, acknowledged := w.step()
			log = append(log, what)
			if w.intN(10) == 0 {
				time.Sleep(time.Duration(w.intN(120)) * time.Second)
			}
			if w.left.Load() == 0 && !acknowledged {
				break
			}
			if w.left.Load() < 0 && w.intN(6) == 0 {
				w.left.Store(int64(1 + w.intN(30)))
			}
		}
		w.faulty.Store(false)
		w.away.Store(false)
		w.restart()
		time.Sleep(10 * time.Second)
		if faulty {
			time.Sleep(5 * time.Minute) // entries are tried again
			request := records.ResyncRequest{Confirm: true, Grace: new(time.Duration)}
			if _, err := w.resyncer.Once(t.Context(), request); err != nil {
				t.Fatal(err)
			}
		}
		if all := w.disagreements(); len(all) > 0 {
			for _, what := range log {
				t.Log(what)
			}
			for _, what := range all {
				t.Error(what)
			}
			t.Fatalf("round %d", round)
		}
		w.removeDangling()
	}
}

// removeDangling removes the tags whose manifests are gone. A push of such a manifest would revive them,
// which the next comparison of the whole registry finds.
func (w *world) removeDangling() {
	for _, name := range modelRepositories {
		repo, err := tracker.OpenRepository(w.t.Context(), w.plain, name)
		if err != nil {
			w.t.Fatal(err)
		}
		all, _ := repo.Tags(w.t.Context()).All(w.t.Context()) // none of an unknown repository
		known := w.registry(name).tags
		for _, tag := range all {
			if _, ok := known[tag]; ok {
				continue
			}
			w.mu.Lock()
			err := w.disk.Delete(w.t.Context(), "/docker/registry/v2/repositories/"+name+"/_manifests/tags/"+tag)
			w.mu.Unlock()
			if err != nil {
				w.t.Fatal(err)
			}
		}
	}
}
