package gc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/registry/journal"
	"tallyman/registry/resync"
	"tallyman/registry/tracker"
	"tallyman/signatures"
	"tallyman/storage/memory"
)

// newRegistry returns a registry with a repository app, its storage, and push, which pushes a
// manifest about a subject, with a tag, if there are any.
func newRegistry(t *testing.T) (c *configuration.Configuration, namespace distribution.Namespace, d driver.StorageDriver, push func(name, subject, tag string) digest.Digest) {
	t.Helper()
	ctx := t.Context()
	c = &configuration.Configuration{Storage: configuration.Storage{"filesystem": {"rootdirectory": t.TempDir()}}}
	namespace, d, err := open(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := tracker.OpenRepository(ctx, namespace, "app")
	if err != nil {
		t.Fatal(err)
	}
	service, err := repo.Manifests(ctx)
	if err != nil {
		t.Fatal(err)
	}
	push = func(name, subject, tag string) digest.Digest {
		t.Helper()
		config, err := repo.Blobs(ctx).Put(ctx, "application/json", []byte(fmt.Sprintf("{%q:1}", name)))
		if err != nil {
			t.Fatal(err)
		}
		about := ""
		if subject != "" {
			about = fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":2}`, imagespec.MediaTypeImageManifest, subject)
		}
		content, _, err := distribution.UnmarshalManifest(imagespec.MediaTypeImageManifest, []byte(fmt.Sprintf(
			`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/json","digest":%q,"size":%d},"layers":[]%s}`,
			imagespec.MediaTypeImageManifest, config.Digest, config.Size, about)))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := service.Put(ctx, content)
		if err == nil && tag != "" {
			err = repo.Tags(ctx).Tag(ctx, tag, imagespec.Descriptor{Digest: stored})
		}
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	return c, namespace, d, push
}

// TestCollect: without their tags manifests go, and their repositories from the Images. A referrer
// of a tagged manifest stays, and a referrer of that.
func TestCollect(t *testing.T) {
	ctx := t.Context()
	c, namespace, d, push := newRegistry(t)
	image := push("image", "", "v1")
	signature := push("signature", image.String(), "")
	countersigned := push("countersignature", signature.String(), "")
	untagged := push("untagged", "", "")
	itsSignature := push("its signature", untagged.String(), "")

	backend := memory.New(memory.Options{})
	images, err := rest.NewImages(backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	referring := referrers.NewStore(backend)
	entries := catalog.New(catalog.Options{Backend: backend, Images: images, Referrers: referring})
	o := tracker.Options{Catalog: entries, Referrers: referring, DefaultHost: "registry.example.com", SignatureLimits: signatures.Limits{Content: 1000, PerImage: 10}}
	if _, err := resync.New(resync.Options{Tracker: tracker.New(namespace, d, o)}).Once(ctx, records.ResyncRequest{}); err != nil {
		t.Fatal(err)
	}
	held := func() (names []string) {
		all, err := heldManifests(ctx, namespace)
		if err != nil {
			t.Fatal(err)
		}
		for m := range all {
			if image, err := entries.Get(ctx, m.Digest); err != nil || !slices.Contains(rules.Repositories(image), "app") {
				t.Errorf("%s has no Image: %v", m.Digest, err)
			}
			names = append(names, m.Digest.String())
		}
		slices.Sort(names)
		return names
	}
	all := held()
	if removed, err := Collect(ctx, c, Options{GCOpts: storage.GCOpts{RemoveUntagged: true, DryRun: true, Quiet: true}}); err != nil || removed != 0 || !slices.Equal(held(), all) {
		t.Errorf("a dry run removed %d, %v", removed, err)
	}
	if removed, err := Collect(ctx, c, Options{GCOpts: storage.GCOpts{Quiet: true}}); err != nil || removed != 0 || !slices.Equal(held(), all) {
		t.Errorf("a collection of blobs removed %d manifests, %v", removed, err)
	}
	removed, err := Collect(ctx, c, Options{GCOpts: storage.GCOpts{RemoveUntagged: true, Quiet: true}})
	if err != nil || removed != 2 {
		t.Fatalf("removed %d, %v", removed, err)
	}
	if left, err := Drain(ctx, c, o); err != nil || left != 0 {
		t.Errorf("%d entries left, %v", left, err)
	}
	want := []string{image.String(), signature.String(), countersigned.String()}
	slices.Sort(want)
	if got := held(); !slices.Equal(got, want) {
		t.Errorf("left are %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
	for _, name := range []digest.Digest{untagged, itsSignature} {
		if image, err := entries.Get(ctx, name); err == nil {
			t.Errorf("%s still has an Image: %v", name, rules.Repositories(image))
		}
	}
}

// TestUnreadable: a manifest or tag that cannot be read ends the collection before anything goes: it
// may be, or keep, one that is in use.
func TestUnreadable(t *testing.T) {
	ctx := t.Context()
	c, namespace, d, push := newRegistry(t)
	name := push("image", "", "v1")
	const blobs = "/docker/registry/v2/blobs/sha256/"
	for path, want := range map[string]string{
		blobs + name.Encoded()[:2] + "/" + name.Encoded() + "/data":            "app@" + name.String() + " cannot be read, so nothing is removed",
		"/docker/registry/v2/repositories/app/_manifests/tags/v1/current/link": "app:v1 cannot be read, so nothing is removed",
	} {
		before, err := d.GetContent(ctx, path)
		if err == nil {
			err = d.PutContent(ctx, path, []byte("not what it was"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Collect(ctx, c, Options{GCOpts: storage.GCOpts{RemoveUntagged: true, Quiet: true}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if err := d.PutContent(ctx, path, before); err != nil {
			t.Fatal(err)
		}
		if read, _, err := findReferrers(ctx, namespace); err != nil || !read[journal.Entry{Repository: "app", Digest: name}] {
			t.Errorf("afterwards the manifest is not readable: %v, %v", read, err)
		}
	}
}

// TestProgress: each repository is counted once for each time that it is read.
func TestProgress(t *testing.T) {
	for name, test := range map[string]struct {
		options storage.GCOpts
		want    string
	}{
		"blobs":            {storage.GCOpts{Quiet: true}, "[1/1]"},
		"manifests":        {storage.GCOpts{Quiet: true, RemoveUntagged: true}, "[1/3 2/3 3/3]"},
		"manifests, a try": {storage.GCOpts{Quiet: true, RemoveUntagged: true, DryRun: true}, "[1/2 2/2]"},
	} {
		c, _, _, push := newRegistry(t)
		push("kept", "", "v1")
		push("gone", "", "")
		var seen []string
		o := Options{GCOpts: test.options, Progress: func(done, total int64) { seen = append(seen, fmt.Sprintf("%d/%d", done, total)) }}
		if _, err := Collect(t.Context(), c, o); err != nil || fmt.Sprint(seen) != test.want {
			t.Errorf("%s: %v, %v, want %s", name, seen, err, test.want)
		}
	}
}

// TestOpen: a storage that cannot be opened is an error with its name.
func TestOpen(t *testing.T) {
	c := &configuration.Configuration{Storage: configuration.Storage{"nothing": {}}}
	if _, err := Collect(t.Context(), c, Options{}); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Error(err)
	}
	if _, err := Drain(t.Context(), c, tracker.Options{}); err == nil {
		t.Error("drained")
	}
}
