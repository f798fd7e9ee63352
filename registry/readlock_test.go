package registry

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/registry/tracker"
	"tallyman/signatures/manifest"
	"tallyman/signatures/signtest"
	ourstorage "tallyman/storage"
)

// readingLock takes locks that nobody else has, and reads from a store.
func readingLock(backend ourstorage.Backend) ourstorage.LockFunc {
	return func(ctx context.Context, keys []string, _ ...string) (ourstorage.Lock, map[string]*ourstorage.Entry, error) {
		read := map[string]*ourstorage.Entry{}
		for _, key := range keys {
			entry, _, err := ourstorage.GetEntry(ctx, backend, key, ourstorage.Read{})
			if err != nil {
				return nil, nil, err
			}
			read[key] = entry
		}
		return unlocking(func() bool { return true }), read, nil
	}
}

// TestReadUnderLock: a push uses the entries that it has read with its lock, and reads anew those that have changed since.
func TestReadUnderLock(t *testing.T) {
	const config = `{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}`
	payload := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + config + `,"layers":[]}`)
	name := digest.FromBytes(payload)
	signature := signtest.Classic(signtest.NewKey(t, "ecdsa-p256").Cosign(signtest.CosignPayload(name, "registry.example.com/a", nil)))
	image := signtest.Artifact{Manifest: payload, Blobs: [][]byte{[]byte("{}")}}
	for title, test := range map[string]struct {
		before  bool // the Image is there
		push    signtest.Artifact
		tag     string
		between string // the repository that another process pushes the image to, after the reading
		places  string
		signed  bool
	}{
		"an image":                              {false, image, "v1", "", "a a:v1", false},
		"an image that another pushes first":    {false, image, "v1", "b", "a b a:v1", false},
		"a tag of an image":                     {true, image, "v2", "", "a a:v2", false},
		"a tag of an image that changes":        {true, image, "v2", "b", "a b a:v2", false},
		"a signature":                           {true, signature, signtest.ClassicTag(name), "", "a", true},
		"a signature of an image that changes":  {true, signature, signtest.ClassicTag(name), "b", "a b", true},
		"a signature before its image":          {false, signature, signtest.ClassicTag(name), "", "gone", false},
		"a signature while its image is pushed": {false, signature, signtest.ClassicTag(name), "b", "b", true},
	} {
		t.Run(title, func(t *testing.T) {
			var h *house
			record := func(repository string) {
				parsed, err := manifest.Parse(imagespec.MediaTypeImageManifest, payload)
				if err != nil {
					t.Fatal(err)
				}
				push := catalog.Push{Repository: repository, Digest: name, Manifest: parsed}
				derived, err := h.catalog.Derive(push)
				if err == nil {
					err = h.catalog.Record(t.Context(), push, derived)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			taken := 0
			h = newHouseWith(t, tracker.Options{Lock: func(ctx context.Context, keys []string, names ...string) (ourstorage.Lock, map[string]*ourstorage.Entry, error) {
				l, read, err := readingLock(h.store)(ctx, keys, names...)
				if taken++; test.between != "" && taken == 1 {
					record(test.between)
				}
				return l, read, err
			}}, nil)
			if test.before {
				record("a")
			}
			h.pushTogether("a", test.tag, test.push)
			if got := h.lives(name); got != test.places {
				t.Errorf("the image lives in %q, want %q", got, test.places)
			}
			if stored, err := h.catalog.Get(t.Context(), name); test.places != "gone" && (err != nil || len(stored.Signatures) > 0 != test.signed) {
				t.Errorf("%+v, %v", stored, err)
			}
			if n := h.entries(); n != 0 || taken != 1 {
				t.Errorf("%d entries, %d locks", n, taken)
			}
		})
	}
}

// pushTogether pushes an artifact with its tag in one request, as clients do.
func (h *house) pushTogether(repository, tag string, a signtest.Artifact) {
	h.t.Helper()
	request := &tracker.Request{}
	ctx := tracker.WithRequest(h.t.Context(), request)
	repo := h.repository(h.namespace, repository)
	for _, blob := range a.Blobs {
		if _, err := repo.Blobs(ctx).Put(ctx, "application/octet-stream", blob); err != nil {
			h.t.Fatal(err)
		}
	}
	content, descriptor, err := distribution.UnmarshalManifest(imagespec.MediaTypeImageManifest, a.Manifest)
	if err != nil {
		h.t.Fatal(err)
	}
	manifests, err := repo.Manifests(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	if _, err := manifests.Put(ctx, content, distribution.WithTag(tag)); err != nil {
		h.t.Fatal(err)
	}
	if err := errors.Join(repo.Tags(ctx).Tag(ctx, tag, imagespec.Descriptor{Digest: descriptor.Digest}), request.End(ctx)); err != nil {
		h.t.Fatal(err)
	}
}

// TestDeletionReadUnderLock: a deletion that has read with its lock leaves the Image to a repository that has got
// the manifest since, and takes a tag with it that it has got since.
func TestDeletionReadUnderLock(t *testing.T) {
	for between, want := range map[string]string{"": "gone", "b:v1": "b b:v1", "a:late": "gone"} {
		t.Run(between, func(t *testing.T) {
			var h *house
			var name digest.Digest
			armed := false
			h = newHouseWith(t, tracker.Options{Lock: func(ctx context.Context, keys []string, names ...string) (ourstorage.Lock, map[string]*ourstorage.Entry, error) {
				l, read, err := readingLock(h.store)(ctx, keys, names...)
				repository, tag, ok := strings.Cut(between, ":")
				if ok = ok && armed; ok {
					push := catalog.Push{Repository: repository, Tag: tag, Digest: name, Manifest: &manifest.Manifest{Kind: manifest.Image, MediaType: imagespec.MediaTypeImageManifest}}
					if image, getErr := h.catalog.Get(ctx, name); getErr != nil {
						t.Error(getErr)
					} else if recordErr := h.catalog.Record(ctx, push, image.DeepCopy()); recordErr != nil {
						t.Error(recordErr)
					}
				}
				armed = false
				return l, read, err
			}}, nil)
			name = h.mustPush("a", "v1", "one")
			armed = true
			request := &tracker.Request{}
			ctx := tracker.WithRequest(t.Context(), request)
			manifests, err := h.repository(h.namespace, "a").Manifests(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(manifests.Delete(ctx, name), request.End(ctx)); err != nil {
				t.Fatal(err)
			}
			if got := h.lives(name); got != want {
				t.Errorf("the image lives in %q, want %q", got, want)
			}
			if armed {
				t.Error("the deletion took no lock")
			}
		})
	}
}
