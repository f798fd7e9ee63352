package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/referrers"
	"tallyman/registry/journal"
	"tallyman/registry/tracker"
)

// store puts a manifest into the registry's storage as another registry has left it there.
func (h *house) storeManifest(repository, content string) digest.Digest {
	h.t.Helper()
	name := digest.FromString(content)
	const root = "/docker/registry/v2/"
	for path, data := range map[string]string{
		root + "blobs/sha256/" + name.Encoded()[:2] + "/" + name.Encoded() + "/data":                                                  content,
		root + "repositories/" + repository + "/_manifests/revisions/sha256/" + name.Encoded() + "/link":                              name.String(),
		root + "repositories/" + repository + "/_manifests/tags/v" + name.Encoded()[:8] + "/current/link":                             name.String(),
		root + "repositories/" + repository + "/_manifests/tags/v" + name.Encoded()[:8] + "/index/sha256/" + name.Encoded() + "/link": name.String(),
	} {
		if err := h.driver.PutContent(h.t.Context(), path, []byte(data)); err != nil {
			h.t.Fatal(err)
		}
	}
	return name
}

// TestOlderFormats: manifests that distribution 3 does not read have Images all the same, because
// their bytes can be read.
func TestOlderFormats(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	subject := digest.FromString("subject")
	config, err := h.repository(h.namespace, "old").Blobs(t.Context()).Put(t.Context(), imagespec.MediaTypeImageConfig, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	schema1 := h.storeManifest("old", `{"schemaVersion":1,"name":"old","tag":"v1","architecture":"amd64",`+
		`"fsLayers":[{"blobSum":"`+subject.String()+`"}],"history":[{"v1Compatibility":"{\"id\":\"a\",\"architecture\":\"amd64\",\"os\":\"linux\"}"}]}`)
	artifact := h.storeManifest("old", fmt.Sprintf(`{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"application/sbom",`+
		`"blobs":[{"mediaType":"text/plain","digest":%q,"size":3}],"subject":{"mediaType":%q,"digest":%q,"size":2}}`, subject, imagespec.MediaTypeImageManifest, subject))
	panics := h.storeManifest("old", fmt.Sprintf(`{"schemaVersion":2,"manifests":"x","manifests":null,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[]}`, config.Digest))
	h.resync()
	for name, want := range map[digest.Digest]string{
		schema1:  "application/vnd.docker.distribution.manifest.v1+json 1 ",
		artifact: "application/vnd.oci.artifact.manifest.v1+json 1 application/sbom",
		panics:   "application/vnd.oci.image.manifest.v1+json 0 application/vnd.oci.empty.v1+json",
	} {
		image, err := h.catalog.Get(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", want, err)
			continue
		}
		if got := fmt.Sprint(image.DockerImageManifestMediaType, " ", len(image.DockerImageLayers), " ", image.Annotations["tallyman.dev/artifact-type"]); got != want {
			t.Errorf("an Image is %s, want %s", got, want)
		}
		if !strings.Contains(h.lives(name), "old:v"+name.Encoded()[:8]) {
			t.Errorf("%s: it lives in %q", want, h.lives(name))
		}
	}
	if n := h.entries(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
	log := captureLog(t)
	h.resync()
	if !strings.Contains(log.String(), "recorded=0") {
		t.Errorf("a second resync records something: %s", log.String())
	}
}

// TestSetAside: a manifest that nobody can read is reported once, whatever looks at it, until
// another version of this program does.
func TestSetAside(t *testing.T) {
	log := captureLog(t)
	h := newHouseWith(t, tracker.Options{Version: "v1"}, nil)
	name := h.storeManifest("old", "this is no JSON")
	reports := func() int { return strings.Count(log.String(), "cannot record a manifest") }
	for range 3 {
		h.resync()
		h.tracker.Drain(t.Context())
		if _, err := h.journal.Add(t.Context(), journal.Entry{Repository: "old", Digest: name}); err != nil {
			t.Fatal(err)
		}
		if left := h.tracker.Drain(t.Context()); left != 0 {
			t.Errorf("%d entries are left", left)
		}
	}
	if n := reports(); n != 1 {
		t.Errorf("%d reports, want 1: %s", n, log.String())
	}
	if !strings.Contains(log.String(), "setAside=1") {
		t.Errorf("the resync does not count it: %s", log.String())
	}
	h.tracker = tracker.New(h.plain, h.driver, tracker.Options{Version: "v2", Catalog: h.catalog})
	h.resync()
	if n := reports(); n != 2 {
		t.Errorf("%d reports with another version, want 2", n)
	}
	good := h.mustPush("a", "v1", "somebody")
	if h.lives(good) != "a a:v1" {
		t.Errorf("an ordinary image lives in %q", h.lives(good))
	}
}

// TestDeleteUnreadable: a signature whose manifest cannot be read any more leaves the Image when it
// is deleted.
func TestDeleteUnreadable(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	image := h.mustPush("a", "v1", "somebody")
	config, err := h.repository(h.namespace, "a").Blobs(t.Context()).Put(t.Context(), imagespec.MediaTypeImageConfig, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	name, err := h.putContent("a", fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/sbom","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":2}}`,
		imagespec.MediaTypeImageManifest, config.Digest, imagespec.MediaTypeImageManifest, image))
	if err != nil {
		t.Fatal(err)
	}
	records := referrers.NewStore(h.store)
	if page, _, err := records.List(t.Context(), image, "a", "", 0); err != nil || len(page) != 1 {
		t.Fatal(page, err)
	}
	if err := h.driver.Delete(t.Context(), "/docker/registry/v2/blobs/sha256/"+name.Encoded()[:2]+"/"+name.Encoded()); err != nil {
		t.Fatal(err)
	}
	if err := h.driver.PutContent(t.Context(), "/docker/registry/v2/blobs/sha256/"+name.Encoded()[:2]+"/"+name.Encoded()+"/data", []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if err := h.remove("a", name); err != nil {
		t.Fatal(err)
	}
	if page, _, err := records.List(t.Context(), image, "a", "", 0); err != nil || len(page) != 0 {
		t.Errorf("it is listed still: %+v, %v", page, err)
	}
}

// failing is a manifest service whose reads fail, as those of a storage that does not answer.
type failing struct {
	distribution.ManifestService
	holds bool
}

func (f failing) Get(context.Context, digest.Digest, ...distribution.ManifestServiceOption) (distribution.Manifest, error) {
	return nil, errDown
}

func (f failing) Exists(context.Context, digest.Digest) (bool, error) { return f.holds, nil }

// TestReadManifest: a blob that another repository has is no manifest of this one when a read
// fails, which is not for good.
func TestReadManifest(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	name := h.mustPush("a", "v1", "somebody")
	if m, err := tracker.ReadManifest(t.Context(), h.plain, failing{holds: true}, name); err != nil || m == nil {
		t.Errorf("held: %v, %v", m, err)
	}
	if m, err := tracker.ReadManifest(t.Context(), h.plain, failing{}, name); !errors.Is(err, errDown) || m != nil {
		t.Errorf("not held: %v, %v", m, err)
	}
}
