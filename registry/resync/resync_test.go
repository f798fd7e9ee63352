package resync

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/imagetest"
	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/registry/paths"
	"tallyman/registry/tracker"
	"tallyman/signatures"
	"tallyman/storage/memory"
)

// observed is a storage whose calls are counted, and whose listings can be made to lack something.
type observed struct {
	driver.StorageDriver
	calls atomic.Int64
	name  string
	hide  string // the end of paths that are not listed
	fail  string // the end of paths that cannot be listed
}

func (o *observed) Name() string {
	if o.name != "" {
		return o.name
	}
	return o.StorageDriver.Name()
}

func (o *observed) List(ctx context.Context, directory string) ([]string, error) {
	o.calls.Add(1)
	if o.fail != "" && strings.HasSuffix(directory, o.fail) {
		return nil, errors.New("no answer")
	}
	names, err := o.StorageDriver.List(ctx, directory)
	return slices.DeleteFunc(names, func(name string) bool { return o.hide != "" && strings.HasSuffix(name, o.hide) }), err
}

func (o *observed) GetContent(ctx context.Context, file string) ([]byte, error) {
	o.calls.Add(1)
	return o.StorageDriver.GetContent(ctx, file)
}

func (o *observed) Stat(ctx context.Context, file string) (driver.FileInfo, error) {
	o.calls.Add(1)
	return o.StorageDriver.Stat(ctx, file)
}

func (o *observed) Walk(ctx context.Context, directory string, fn driver.WalkFn, options ...func(*driver.WalkOptions)) error {
	o.calls.Add(1)
	return o.StorageDriver.Walk(ctx, directory, fn, options...)
}

// site is a registry that records nothing by itself, and its records.
type site struct {
	t         *testing.T
	driver    *observed
	plain     distribution.Namespace
	catalog   *catalog.Catalog
	tracker   *tracker.Tracker
	referrers *referrers.Store
	options   Options
	now       time.Time
}

func newSite(t *testing.T) *site {
	backend := memory.New(memory.Options{})
	images, err := rest.NewImages(backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	s := &site{t: t, driver: &observed{StorageDriver: filesystem.New(filesystem.DriverParameters{RootDirectory: t.TempDir(), MaxThreads: 100})}}
	s.now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	clock := func() time.Time { return s.now }
	s.referrers = referrers.NewStore(backend)
	s.catalog = catalog.New(catalog.Options{
		Backend: backend, Images: images, Referrers: s.referrers, Records: records.New(records.Options{Backend: backend, Now: clock}),
	})
	if s.plain, err = storage.NewRegistry(t.Context(), s.driver, storage.EnableDelete); err != nil {
		t.Fatal(err)
	}
	s.tracker = tracker.New(s.plain, s.driver, tracker.Options{
		Catalog: s.catalog, Referrers: s.referrers, Host: "registry.example.com", SignatureLimits: signatures.Limits{Content: 1000, PerImage: 10},
	})
	s.options = Options{Tracker: s.tracker, Grace: time.Hour, Removals: 10, Now: clock}
	return s
}

func (s *site) repository(name string) distribution.Repository {
	s.t.Helper()
	repo, err := tracker.OpenRepository(s.t.Context(), s.plain, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return repo
}

// push pushes an image with a tag.
func (s *site) push(repository, tag, content string) digest.Digest {
	s.t.Helper()
	ctx, repo := s.t.Context(), s.repository(repository)
	config, err := repo.Blobs(ctx).Put(ctx, imagespec.MediaTypeImageConfig, fmt.Appendf(nil, `{"os":"linux","architecture":"amd64","author":%q}`, content))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.put(repository, tag, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]}`,
		imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageConfig, config.Digest, config.Size))
}

// put puts a manifest, with a tag if it is not "".
func (s *site) put(repository, tag, content string) digest.Digest {
	s.t.Helper()
	ctx, repo := s.t.Context(), s.repository(repository)
	m, _, err := distribution.UnmarshalManifest(imagespec.MediaTypeImageManifest, []byte(content))
	if err != nil {
		s.t.Fatal(err)
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	name, err := manifests.Put(ctx, m)
	if err != nil {
		s.t.Fatal(err)
	}
	if tag != "" {
		s.tag(repository, tag, name)
	}
	return name
}

func (s *site) tag(repository, tag string, to digest.Digest) {
	s.t.Helper()
	if err := s.repository(repository).Tags(s.t.Context()).Tag(s.t.Context(), tag, imagespec.Descriptor{Digest: to}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) untag(repository, tag string) {
	s.t.Helper()
	if err := s.repository(repository).Tags(s.t.Context()).Untag(s.t.Context(), tag); err != nil {
		s.t.Fatal(err)
	}
}

// remove removes a directory below the one of repositories.
func (s *site) remove(directory string) {
	s.t.Helper()
	if err := s.driver.Delete(s.t.Context(), path.Join(paths.Repositories, directory)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) once(request records.ResyncRequest) records.ResyncState {
	s.t.Helper()
	state, err := New(s.options).Once(s.t.Context(), request)
	if err != nil || state.Finished.IsZero() {
		s.t.Fatalf("%+v, %v", state, err)
	}
	return state
}

// lives returns the repositories and tags of an Image, "gone" if there is none.
func (s *site) lives(name digest.Digest) string {
	s.t.Helper()
	image, err := s.catalog.Get(s.t.Context(), name)
	return imagetest.Places(s.t, image, err)
}

func (s *site) want(when string, want map[digest.Digest]string) {
	s.t.Helper()
	for name, is := range want {
		if got := s.lives(name); got != is {
			s.t.Errorf("%s: an image is %q, want %q", when, got, is)
		}
	}
}

var now = records.ResyncRequest{Grace: new(time.Duration)}

// TestBothWays: content of the registry is recorded at once; records of things that it lacks go after the
// grace period, or at once by request.
func TestBothWays(t *testing.T) {
	for name, atOnce := range map[string]bool{"by request": true, "after the grace period": false} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			untagged, deleted, moved := s.push("a", "untagged", "1"), s.push("a", "deleted", "2"), s.push("a", "moved", "3")
			swept, lost := s.push("a", "swept", "4"), s.push("team/lost", "v1", "5")
			if state := s.once(records.ResyncRequest{}); state.Repositories != 2 || state.Manifests != 5 || state.Tags != 5 || state.Recorded != 10 || state.Failed != 0 {
				t.Errorf("the first: %+v", state)
			}
			s.want("at first", map[digest.Digest]string{untagged: "a a:untagged", lost: "team/lost team/lost:v1"})

			s.untag("a", "untagged")
			manifests, err := s.repository("a").Manifests(t.Context())
			if err == nil {
				err = manifests.Delete(t.Context(), deleted) // its directory stays
			}
			if err != nil {
				t.Fatal(err)
			}
			s.untag("a", "deleted")
			s.remove("a/_manifests/tags/swept")
			s.remove("a/_manifests/revisions/sha256/" + swept.Encoded())
			s.remove("team")
			s.tag("a", "moved", untagged)
			added := s.push("b", "v1", "6")
			gone := map[digest.Digest]string{untagged: "a a:moved", deleted: "gone", swept: "gone", lost: "gone", moved: "a", added: "b b:v1"}
			if atOnce {
				if state := s.once(now); state.Removed != 7 || state.Missing != 0 || state.Blocked {
					t.Errorf("%+v", state)
				}
				s.want("afterwards", gone)
				return
			}
			state := s.once(records.ResyncRequest{})
			if state.Removed != 0 || state.Missing != 7 || state.Recorded != 3 {
				t.Errorf("with a grace period: %+v", state)
			}
			s.want("in the grace period", map[digest.Digest]string{untagged: "a a:moved a:untagged", deleted: "a a:deleted", lost: "team/lost team/lost:v1", moved: "a", added: "b b:v1"})
			s.push("team/lost", "v1", "5") // it comes back
			s.tag("a", "deleted", moved)   // and another thing under an old name
			s.now = s.now.Add(time.Hour)
			New(s.options).step(t.Context())
			gone[lost], gone[moved] = "team/lost team/lost:v1", "a"
			s.want("after it", gone)
			if left, err := s.catalog.Records().CountMissing(t.Context()); left != 0 || err != nil {
				t.Errorf("%d are still noted, %v", left, err)
			}
			if _, state, err := s.catalog.Records().Resyncs().State(t.Context()); state.Missing != 0 || state.Removed != 4 || err != nil {
				t.Errorf("the state is %+v, %v", state, err)
			}
		})
	}
}

// TestChangedRecord: a record that has changed since it was found missing is another one.
func TestChangedRecord(t *testing.T) {
	s := newSite(t)
	one := s.push("a", "v1", "1")
	s.once(records.ResyncRequest{})
	s.untag("a", "v1")
	s.once(records.ResyncRequest{})
	two := s.push("a", "v1", "2")
	s.once(records.ResyncRequest{}) // records the move
	s.untag("a", "v1")
	s.now = s.now.Add(time.Hour)
	r := New(s.options)
	if removed, err := r.removeMissing(t.Context(), time.Hour); removed != 0 || err != nil {
		t.Errorf("%d removed, %v", removed, err)
	}
	s.want("", map[digest.Digest]string{one: "a", two: "a a:v1"})
}

// TestShortListing: a listing that lacks something, or fails, removes nothing.
func TestShortListing(t *testing.T) {
	for name, set := range map[string]func(o *observed, image digest.Digest){
		"no tags":           func(o *observed, _ digest.Digest) { o.hide = "/v1" },
		"no manifests":      func(o *observed, image digest.Digest) { o.hide, o.name = "/"+image.Encoded(), "s3aws" },
		"tags unknown":      func(o *observed, _ digest.Digest) { o.fail = "/tags" },
		"manifests unknown": func(o *observed, _ digest.Digest) { o.fail, o.name = "/revisions", "s3aws" },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			image := s.push("a", "v1", "1")
			s.push("b", "v1", "2")
			s.once(records.ResyncRequest{})
			set(s.driver, image)
			for _, request := range []records.ResyncRequest{{}, now} {
				if state := s.once(request); state.Removed != 0 || state.Missing != 0 || (state.Failed > 0) != (s.driver.fail != "") {
					t.Errorf("%+v", state)
				}
			}
			s.want("", map[digest.Digest]string{image: "a a:v1"})
		})
	}
}

// TestTooMany: if the registry lacks more than a part of the records, they stay until that is
// confirmed.
func TestTooMany(t *testing.T) {
	for name, test := range map[string]struct {
		tags, untagged int
		gone           string
		blocked        bool
	}{
		"a part of many":    {60, 6, "", false},
		"more than a part":  {60, 7, "", true},
		"most of a few":     {10, 9, "", false},
		"a registry's disk": {10, 0, ".", true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			image := s.push("a", "v0", "1")
			for i := range test.tags {
				s.tag("a", fmt.Sprint("v", i), image)
			}
			s.once(records.ResyncRequest{})
			missing := test.untagged
			for i := range test.untagged {
				s.untag("a", fmt.Sprint("v", i))
			}
			if test.gone != "" {
				s.remove(test.gone)
				missing = test.tags + 1
			}
			state := s.once(now)
			if state.Blocked != test.blocked {
				t.Fatalf("%+v", state)
			}
			tags := func() int {
				names, _, err := s.catalog.Records().TagNames(t.Context(), "a", -1, "")
				if err != nil {
					t.Fatal(err)
				}
				return len(names)
			}
			if test.blocked {
				r := New(s.options)
				r.step(t.Context()) // does not remove them, either
				if tags() != test.tags || state.Missing != missing || !strings.Contains(r.options.Status.Blocked(), fmt.Sprintf("lacks %d of %d", missing, test.tags+1)) {
					t.Errorf("%+v, %q", state, r.options.Status.Blocked())
				}
				if state = s.once(records.ResyncRequest{Confirm: true, Grace: new(time.Duration)}); state.Blocked {
					t.Errorf("confirmed: %+v", state)
				}
				defer s.isBlockedAgain("b")
			}
			if state.Removed != missing || test.gone == "" && tags() != test.tags-test.untagged {
				t.Errorf("%+v, %d tags", state, tags())
			}
			if test.gone != "" && s.lives(image) != "gone" {
				t.Error("the Image is still there")
			}
		})
	}
}

// isBlockedAgain wants that a confirmation is for one comparison: records of things that are lost by the
// next stay, also of those that are lost for longer than the grace period.
func (s *site) isBlockedAgain(repository string) {
	s.t.Helper()
	s.options.Period, s.options.Grace = time.Hour, 0
	image := s.push(repository, "v0", "another")
	for i := range 60 {
		s.tag(repository, fmt.Sprint("v", i), image)
	}
	s.once(records.ResyncRequest{Confirm: true, Grace: new(time.Duration)})
	s.remove(repository)
	s.now = s.now.Add(2 * time.Hour)
	r := New(s.options)
	r.step(s.t.Context())
	if got := len(strings.Fields(s.lives(image))); got != 61 || r.options.Status.Blocked() == "" {
		s.t.Errorf("after another loss %d of 61 places are left; %q", got, r.options.Status.Blocked())
	}
}

// TestCheckpoint: a comparison that was broken off goes on behind its checkpoint.
func TestCheckpoint(t *testing.T) {
	s := newSite(t)
	for i := range 9 {
		s.push(fmt.Sprint("r", i), "v1", fmt.Sprint(i))
	}
	s.once(records.ResyncRequest{})
	resyncs := s.catalog.Records().Resyncs()
	last, err := resyncs.Request(t.Context(), records.ResyncRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for checkpoint, want := range map[string]int{"r5": 100 + 3, "a repository that is gone": 9} {
		state := records.ResyncState{Handled: last.Revision, Started: s.now, Checkpoint: checkpoint, Manifests: 100}
		if err := resyncs.SetState(t.Context(), &state); err != nil {
			t.Fatal(err)
		}
		New(s.options).step(t.Context())
		if _, state, err := resyncs.State(t.Context()); err != nil || state.Finished.IsZero() || state.Manifests != want || state.Repositories != 9 || state.Missing != 0 {
			t.Errorf("%+v, %v", state, err)
		}
	}
	o := order{done: map[int]bool{}}
	for _, name := range []string{"a", "b", "c", "d"} {
		o.next(name)
	}
	var got []string
	for _, number := range []int{1, 0, 3, 2} {
		got = append(got, o.finish(number))
	}
	if !slices.Equal(got, []string{"", "b", "", "d"}) {
		t.Errorf("checkpoints %q", got)
	}
}

// TestSignatures: manifests that are about an image, and have no Image, are recorded once, and their
// records go with them.
func TestSignatures(t *testing.T) {
	s, ctx := newSite(t), t.Context()
	image := s.push("a", "v1", "1")
	artifact := func(subject, artifactType string) string {
		blob, err := s.repository("a").Blobs(ctx).Put(ctx, "text/plain", []byte(artifactType))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]%s}`,
			imagespec.MediaTypeImageManifest, artifactType, artifactType, blob.Digest, blob.Size, artifactType, blob.Digest, blob.Size, subject)
	}
	bundle := s.put("a", "", artifact(fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":2}`, imagespec.MediaTypeImageManifest, image), "application/vnd.dev.sigstore.bundle.v0.3+json"))
	s.put("a", "sha256-"+image.Encoded()+".sig", artifact("", "application/vnd.dev.cosign.simplesigning.v1+json"))
	for i, want := range []int{5, 0} {
		if state := s.once(records.ResyncRequest{}); state.Recorded != want || state.Manifests != 3 || state.Failed != 0 {
			t.Errorf("comparison %d: %+v", i, state)
		}
	}
	if s.lives(bundle) != "gone" {
		t.Error("a signature has an Image")
	}
	s.remove("a/_manifests/revisions/sha256/" + bundle.Encoded())
	if state := s.once(now); state.Removed != 1 {
		t.Errorf("%+v", state)
	}
	if subject, err := s.referrers.SubjectOf(ctx, "a", bundle); subject != "" || err != nil {
		t.Errorf("it still refers to %q, %v", subject, err)
	}
}

// TestCosts: with nothing to do, a comparison lists the layout: three calls for a repository, and one
// for a tag.
func TestCosts(t *testing.T) {
	for _, kind := range []string{"", "s3aws"} {
		s := newSite(t)
		s.driver.name = kind
		const repositories, tags = 5, 7
		for r := range repositories {
			for i := range tags {
				s.push(fmt.Sprint("r", r), fmt.Sprint("v", i), fmt.Sprint(r, i/2))
			}
		}
		s.once(records.ResyncRequest{})
		s.driver.calls.Store(0)
		if state := s.once(records.ResyncRequest{}); state.Recorded != 0 || state.Tags != repositories*tags {
			t.Errorf("%+v", state)
		}
		if calls, most := s.driver.calls.Load(), int64(1+repositories*(3+tags)); calls > most {
			t.Errorf("%d calls, want %d", calls, most)
		}
	}
}

// leases are those of several processes.
type leases struct {
	mu     sync.Mutex
	holder string
}

func (l *leases) LeaseFor(_ context.Context, name, holder string, _ time.Duration) (bool, error) {
	if name != leaseName {
		return true, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder != "" && l.holder != holder {
		return false, nil
	}
	l.holder = holder
	return true, nil
}

func (l *leases) EndLease(_ context.Context, _, holder string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.holder == holder {
		l.holder = ""
	}
	return nil
}

// TestOneProcess: the process that has the lease compares, on request and when the period is over.
func TestOneProcess(t *testing.T) {
	s := newSite(t)
	shared := &leases{holder: "another"}
	s.options.Leases, s.options.Period = shared, time.Hour
	image := s.push("a", "v1", "1")
	r := New(s.options)
	r.wanted.Store(true)
	r.step(t.Context())
	if s.lives(image) != "gone" {
		t.Error("compared without the lease")
	}
	shared.holder = ""
	r.step(t.Context())
	if s.lives(image) != "a a:v1" || shared.holder != "" {
		t.Errorf("an image is %s; %q has the lease afterwards", s.lives(image), shared.holder)
	}
	for _, passed := range []time.Duration{59 * time.Minute, time.Minute} {
		s.tag("a", "v"+passed.String(), image)
		s.now = s.now.Add(passed)
		r.step(t.Context())
	}
	if got := s.lives(image); got != "a a:v1 a:v1m0s a:v59m0s" {
		t.Errorf("after the period: %s", got)
	}
	_, state, err := s.catalog.Records().Resyncs().State(t.Context())
	if err != nil || !state.Started.Equal(s.now) || state.Recorded != 2 {
		t.Errorf("the last comparison: %+v, %v", state, err)
	}
}
