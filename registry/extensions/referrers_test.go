package extensions

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
)

// TestReferrers: lists of the referrers API, whole, by type, and by pages.
func TestReferrers(t *testing.T) {
	h := newHouse(t)
	subject := h.push("a", "application/x", "").String()
	for _, kind := range []string{"sbom", "scan", "sbom2"} {
		h.push("a", "application/"+kind, subject)
	}
	h.push("b", "application/elsewhere", subject)
	path := "/v2/a/referrers/" + subject
	all := h.ask("GET", path, "")
	for _, kind := range []string{"sbom", "scan", "sbom2"} {
		if !strings.Contains(" "+types(t, all)+" ", " "+kind+" ") || strings.Contains(types(t, all), "elsewhere") {
			t.Errorf("all: %s", types(t, all))
		}
	}
	if all.Header().Get("Link") != "" || all.Header().Get("OCI-Filters-Applied") != "" || all.Header().Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("headers: %v", all.Header())
	}
	if w := h.ask("GET", path+"?artifactType=application/scan", ""); types(t, w) != "scan" || w.Header().Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("by type: %s, %v", types(t, w), w.Header())
	}
	if w := h.ask("GET", "/v2/a/referrers/"+digest.FromString("none").String(), ""); types(t, w) != "" {
		t.Errorf("without any: %s", types(t, w))
	}
	var paged []string
	next := path + "?n=2"
	for next != "" {
		w := h.ask("GET", next, "")
		paged = append(paged, types(t, w))
		link, _, _ := strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
		next = link
	}
	if len(paged) != 2 || strings.Join(paged, " ") != types(t, all) {
		t.Errorf("pages: %q, all: %s", paged, types(t, all))
	}
	h.store.down = true
	if w := h.ask("GET", path, ""); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("without the store: %d %s", w.Code, w.Body)
	}
}

// TestTaggedReferrers: an index under the tag of an older client adds what the store does not know.
// Pages have both, in the order of digests, each manifest once. What is not on a page is not looked up.
func TestTaggedReferrers(t *testing.T) {
	h := newHouse(t)
	subject := h.push("a", "application/x", "")
	var want, listed []string
	list := &referrers.Referrer{Subject: subject, Repository: "a", Tag: strings.Replace(subject.String(), ":", "-", 1)}
	for i := range 12 {
		var name digest.Digest
		if i < 6 {
			name = h.push("a", fmt.Sprint("application/sbom", i), subject.String())
		} else {
			name = h.push("a", fmt.Sprint("application/old", i), "")
		}
		want = append(want, name.String())
		if i >= 4 {
			listed = append(listed, name.String())
		}
	}
	listed = append(listed, digest.FromString("gone").String())
	for range 1000 {
		for _, name := range listed {
			list.Manifests = append(list.Manifests, imagespec.Descriptor{Digest: digest.Digest(name), MediaType: imagespec.MediaTypeImageManifest, ArtifactType: "application/old"})
		}
	}
	if err := h.options.Catalog.Refer(t.Context(), catalog.Reference{Referrer: list}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	for _, n := range []int{1, 5, 12, 100} {
		var got []string
		for next := fmt.Sprintf("/v2/a/referrers/%s?n=%d", subject, n); next != ""; {
			w := h.ask("GET", next, "")
			page := digests(t, w)
			if len(page) > n || len(got) > len(want) {
				t.Fatalf("n=%d: %d on a page, %d in all", n, len(page), len(got))
			}
			got = append(got, page...)
			next, _, _ = strings.Cut(strings.TrimPrefix(w.Header().Get("Link"), "<"), ">")
		}
		if !slices.Equal(got, want) {
			t.Errorf("n=%d: %v, want %v", n, got, want)
		}
	}
	if w := h.ask("GET", "/v2/a/referrers/"+subject.String()+"?artifactType=application/sbom5", ""); types(t, w) != "sbom5" {
		t.Errorf("by type: %s", types(t, w))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, err := New(h.options)
	if err != nil {
		t.Fatal(err)
	}
	answer := &referrersList{left: maxReferrers, most: -1}
	if err := e.listReferrers(ctx, answer, "a", subject, ""); err == nil {
		t.Errorf("a client that has left: %d manifests", len(answer.manifests))
	}
}

func digests(t *testing.T, w *httptest.ResponseRecorder) (all []string) {
	t.Helper()
	var index imagespec.Index
	if err := json.Unmarshal(w.Body.Bytes(), &index); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	for _, d := range index.Manifests {
		all = append(all, d.Digest.String())
	}
	return all
}
