package catalog

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tallyman/imageapi/rest"
	"tallyman/signatures/manifest"
	"tallyman/storage"
	"tallyman/storage/memory"
	"tallyman/storage/section"
)

var recordAllocations = flag.Bool("record-allocations", false, "record what TestAllocations counts as the baseline")

// allocationRuns is how often each function is called.
const allocationRuns = 20

// realPush returns the push of an image with a tag, and the Image that it makes.
func realPush(t *testing.T, c *Catalog, n int) (Push, *imagev1.Image) {
	t.Helper()
	config, content := realImage(n)
	m, err := manifest.Parse(imagespec.MediaTypeImageManifest, content)
	if err != nil {
		t.Fatal(err)
	}
	p := Push{Repository: "team/app", Digest: digest.FromBytes(content), Manifest: m, Config: config, Host: "registry.example.com", Tag: fmt.Sprintf("v%04d", n)}
	derived, err := c.Derive(p)
	if err != nil {
		t.Fatal(err)
	}
	return p, derived
}

// lister returns a function that lists all Images as a client accepts it.
func lister(t *testing.T, images *rest.Images, accept string) func() {
	handler := rest.WithLists(http.NotFoundHandler(), images.Listed())
	const path = "/apis/image.openshift.io/v1/images"
	info := &request.RequestInfo{IsResourceRequest: true, Path: path, Verb: "list", APIGroup: "image.openshift.io", APIVersion: "v1", Resource: "images"}
	return func() {
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r.WithContext(audit.WithAuditContext(request.WithRequestInfo(request.WithNamespace(t.Context(), ""), info))))
		if w.Code != http.StatusOK || w.Body.Len() < 10_000 {
			t.Fatalf("%d %.200s", w.Code, w.Body)
		}
	}
}

// TestAllocations counts the allocations of hot functions on the store in memory, whose own are among
// them: they are within a tenth of the recorded ones. Maps make some more or less in each process, by their
// seeds: "get an Image" has 30 to 36, and 33 are recorded. Run it with -record-allocations after a change
// that is meant.
func TestAllocations(t *testing.T) {
	file := filepath.Join("testdata", "allocations.json")
	baseline, counted := map[string]float64{}, map[string]float64{}
	if content, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(content, &baseline); err != nil {
			t.Fatal(err)
		}
	}
	c, images := open(t, memory.New(memory.Options{}), SignatureOptions{})
	record := func(p Push, derived *imagev1.Image) {
		if err := c.Record(t.Context(), p, derived); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 100 { // the lists have them
		record(realPush(t, c, n))
	}
	first, firstImage := realPush(t, c, 1000)
	second, secondImage := realPush(t, c, 1001)
	record(first, firstImage)
	record(second, secondImage)
	content := firstImage.DockerImageManifest
	stored, _, err := storage.GetEntry(t.Context(), c.backend, rest.Key(first.Digest), storage.Read{})
	if err != nil {
		t.Fatal(err)
	}
	encoded := section.Append(nil, stored.Value.Body())
	count := func(name string, fn func()) {
		t.Helper()
		fn() // what is made once
		counted[name] = testing.AllocsPerRun(allocationRuns, fn)
	}
	for name, accept := range map[string]string{
		"LIST of 100 in JSON":     "application/json",
		"LIST of 100 as a table":  "application/json;as=Table;v=v1;g=meta.k8s.io",
		"LIST of 100 of metadata": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
		"LIST of 100 in protobuf": "application/vnd.kubernetes.protobuf",
	} {
		count(name, lister(t, images, accept))
	}
	count("parse a manifest", func() {
		if _, err := manifest.Parse(imagespec.MediaTypeImageManifest, []byte(content)); err != nil {
			t.Fatal(err)
		}
	})
	count("derive an Image", func() {
		if _, err := c.Derive(first); err != nil {
			t.Fatal(err)
		}
	})
	count("get an Image", func() {
		if _, err := c.Get(t.Context(), first.Digest); err != nil {
			t.Fatal(err)
		}
	})
	count("record the same push again", func() { record(first, firstImage) })
	to := first
	count("move a tag", func() {
		from := to.Digest
		if to = second; from == second.Digest {
			to = first
		}
		if err := c.MoveTag(t.Context(), Move{Repository: "team/app", Tag: "moved", To: to.Digest, From: []digest.Digest{from}}); err != nil {
			t.Fatal(err)
		}
	})
	var pushes []Push
	var derived []*imagev1.Image
	for n := range allocationRuns + 2 {
		p, image := realPush(t, c, 2000+n)
		pushes, derived = append(pushes, p), append(derived, image)
	}
	count("record a push", func() {
		record(pushes[0], derived[0])
		pushes, derived = pushes[1:], derived[1:]
	})
	count("encode a section", func() { section.Append(nil, stored.Value.Body()) })
	count("decode a section", func() {
		if _, err := section.Decode(encoded); err != nil {
			t.Fatal(err)
		}
	})
	for name, got := range counted {
		want, known := baseline[name]
		t.Logf("%s: %v allocations", name, got)
		if !*recordAllocations && (!known || got > want*1.1+1 || got < want*0.9-1) {
			t.Errorf("%s: %v allocations, and %v are recorded", name, got, want)
		}
	}
	if *recordAllocations {
		content, err := json.MarshalIndent(counted, "", "\t")
		if err == nil {
			err = os.WriteFile(file, append(content, '\n'), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
