package extensions

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/registry/tracker"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
	ourstorage "tallyman/storage"
	"tallyman/storage/memory"
)

// outage is a store that can be made to fail.
type outage struct {
	ourstorage.Backend
	down bool
}

func (o *outage) Scan(ctx context.Context, r ourstorage.ScanRequest) (*ourstorage.ScanResult, error) {
	if o.down {
		return nil, fmt.Errorf("down")
	}
	return o.Backend.Scan(ctx, r)
}

// house is a registry with the endpoints.
type house struct {
	t       *testing.T
	store   *outage
	plain   distribution.Namespace
	tracker *tracker.Tracker
	options Options
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, store: &outage{Backend: memory.New(memory.Options{})}}
	images, err := rest.NewImages(h.store, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	d := inmemory.New()
	if h.plain, err = storage.NewRegistry(t.Context(), d, storage.EnableDelete); err != nil {
		t.Fatal(err)
	}
	records := referrers.NewStore(h.store)
	entries := catalog.New(catalog.Options{Backend: h.store, Images: images, Referrers: records})
	h.tracker = tracker.New(h.plain, d, tracker.Options{
		Catalog: entries, Referrers: records, Host: "registry.example.com", SignatureLimits: signatures.Limits{Content: 1000, PerImage: 10},
	})
	c := &configuration.Configuration{}
	c.Log.AccessLog.Disabled = true
	c.HTTP.Headers = http.Header{"X-Content-Type-Options": {"nosniff"}}
	h.options = Options{Configuration: c, Anonymous: true, Tracker: h.tracker, Catalog: entries, Referrers: records, SignatureLimit: 1000, Signatures: true}
	return h
}

// push pushes a manifest with a config, about a subject if it is not empty.
func (h *house) push(repository, artifactType, subject string) digest.Digest {
	h.t.Helper()
	ctx := h.t.Context()
	repo, err := tracker.OpenRepository(ctx, h.plain, repository)
	if err != nil {
		h.t.Fatal(err)
	}
	config, err := repo.Blobs(ctx).Put(ctx, artifactType, []byte(fmt.Sprintf("{%q:1}", artifactType)))
	if err != nil {
		h.t.Fatal(err)
	}
	about := ""
	if subject != "" {
		about = fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":2}`, imagespec.MediaTypeImageManifest, subject)
	}
	content := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[]%s}`,
		imagespec.MediaTypeImageManifest, artifactType, config.Digest, config.Size, about))
	put, _, err := distribution.UnmarshalManifest(imagespec.MediaTypeImageManifest, content)
	if err != nil {
		h.t.Fatal(err)
	}
	parsed, err := manifest.Parse("", content)
	if err != nil {
		h.t.Fatal(err)
	}
	service, err := repo.Manifests(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	name := digest.FromBytes(content)
	err = h.tracker.Pushed(ctx, repo, tracker.Push{Manifest: parsed, Digest: name}, func() (digest.Digest, error) { return service.Put(ctx, put) })
	if err != nil {
		h.t.Fatal(err)
	}
	return name
}

// ask sends a request to the endpoints.
func (h *house) ask(method, target, body string) *httptest.ResponseRecorder {
	h.t.Helper()
	e, err := New(h.options)
	if err != nil {
		h.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	e.Handler(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

func types(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var index imagespec.Index
	if err := json.Unmarshal(w.Body.Bytes(), &index); err != nil || w.Code != http.StatusOK || index.MediaType != imagespec.MediaTypeImageIndex {
		t.Fatalf("%d %s, %v", w.Code, w.Body, err)
	}
	var all []string
	for _, d := range index.Manifests {
		all = append(all, strings.TrimPrefix(d.ArtifactType, "application/"))
	}
	return strings.Join(all, " ")
}

// TestPrefix: http.prefix comes before the endpoints, and in the link to the next page.
func TestPrefix(t *testing.T) {
	for _, prefix := range []string{"/hub", "/hub/"} {
		h := newHouse(t)
		subject := h.push("a", "application/x", "")
		h.push("a", "application/sbom", subject.String())
		h.push("a", "application/scan", subject.String())
		h.options.Configuration.HTTP.Prefix = prefix
		w := h.ask("GET", "/hub/v2/a/referrers/"+subject.String()+"?n=1", "")
		if next := w.Header().Get("Link"); w.Code != http.StatusOK || !strings.HasPrefix(next, "</hub/v2/a/referrers/") {
			t.Errorf("%s: %d, Link %q", prefix, w.Code, next)
		}
		for path, status := range map[string]int{
			"/hub/extensions/v2/a/signatures/": 200, "/extensions/v2/a/signatures/": 404, "/v2/a/referrers/": 404,
		} {
			if w := h.ask("GET", path+subject.String(), ""); w.Code != status {
				t.Errorf("%s%s: %d, want %d", prefix, path, w.Code, status)
			}
		}
	}
}

// TestPullThrough: a pull-through cache does not claim that there are no referrers or signatures,
// and takes none.
func TestPullThrough(t *testing.T) {
	h := newHouse(t)
	subject := h.push("a", "application/x", "").String()
	h.options.Tracker = tracker.New(h.plain, inmemory.New(), tracker.Options{Catalog: h.options.Catalog, PullThrough: true})
	for method, path := range map[string]string{"GET": "/v2/a/referrers/", "PUT": "/extensions/v2/a/signatures/", "HEAD": "/extensions/v2/a/signatures/"} {
		if w := h.ask(method, path+subject, "{}"); w.Code != http.StatusNotFound {
			t.Errorf("%s %s: %d", method, path, w.Code)
		}
	}
}

// TestConcurrentRequests: a bounded number of requests is answered at a time, fewer of one client,
// and one whose client leaves waits no longer.
func TestConcurrentRequests(t *testing.T) {
	h := newHouse(t)
	subject := h.push("a", "application/x", "")
	e, err := New(h.options)
	if err != nil {
		t.Fatal(err)
	}
	handler := e.Handler(http.NotFoundHandler())
	ask := func(ctx context.Context, address string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/v2/a/referrers/"+subject.String(), nil)
		r.RemoteAddr = address
		handler.ServeHTTP(w, r)
		return w
	}
	take := func(client string) (free func()) {
		t.Helper()
		free, ok := e.places.take(t.Context(), client)
		if !ok {
			t.Fatal("no place")
		}
		return free
	}
	waits := func(address string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if w := ask(ctx, address); w.Body.Len() > 0 {
			t.Errorf("%s is answered beside as many as may be: %s", address, w.Body)
		}
	}
	var all []func()
	for range maxClientRequests {
		all = append(all, take("192.0.2.1"))
	}
	waits("192.0.2.1:1000")
	if w := ask(t.Context(), "192.0.2.2:1000"); w.Code != http.StatusOK {
		t.Errorf("another client: %d", w.Code)
	}
	for n := len(all); n < maxRequests; n++ {
		all = append(all, take(fmt.Sprint("user ", n)))
	}
	waits("192.0.2.2:1000")
	all[0]()
	if w := ask(t.Context(), "192.0.2.1:1001"); w.Code != http.StatusOK {
		t.Errorf("with room: %d", w.Code)
	}
	for _, free := range all[1:] {
		free()
	}
	if len(e.places.all) != 0 || len(e.places.clients) != 0 {
		t.Errorf("%d places are taken, %d clients known, of none", len(e.places.all), len(e.places.clients))
	}
}

// TestRefusals: each bad request has the status and code of the distribution-spec.
func TestRefusals(t *testing.T) {
	h := newHouse(t)
	image := h.push("a", "application/x", "").String()
	signature := func(name, kind, content string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"name":%q,"type":%q,"content":%q}`, name, kind, base64.StdEncoding.EncodeToString([]byte(content)))
	}
	path := "/extensions/v2/a/signatures/" + image
	for name, c := range map[string]struct {
		method, target, body string
		status               int
		want                 string
	}{
		"another method":       {"DELETE", path, "", 405, "UNSUPPORTED"},
		"no digest":            {"GET", "/v2/a/referrers/sha256:x", "", 400, "DIGEST_INVALID"},
		"a bad escape":         {"GET", "/v2/a/referrers/sha256%3Ax", "", 400, "DIGEST_INVALID"},
		"a bad page size":      {"GET", "/v2/a/referrers/" + image + "?n=0", "", 400, "PAGINATION_NUMBER_INVALID"},
		"a bad page":           {"GET", "/v2/a/referrers/" + image + "?last=x", "", 400, "DIGEST_INVALID"},
		"another path":         {"GET", "/v2/a/tags/list", "", 404, "404 page not found"},
		"not held":             {"GET", "/extensions/v2/b/signatures/" + image, "", 404, "MANIFEST_UNKNOWN"},
		"a signature of none":  {"PUT", "/extensions/v2/b/signatures/" + image, signature(image+"@x", "atomic", "s"), 404, "MANIFEST_UNKNOWN"},
		"no JSON":              {"PUT", path, "hello", 400, "not a signature"},
		"another version":      {"PUT", path, `{"schemaVersion":1}`, 400, "schemaVersion=2"},
		"another image's name": {"PUT", path, signature("sha256:x@y", "atomic", "s"), 400, "is not valid"},
		"no content":           {"PUT", path, signature(image+"@x", "atomic", ""), 400, "content is required"},
		"too large":            {"PUT", path, signature(image+"@x", "atomic", strings.Repeat("x", 1001)), 413, "at most 1000 bytes"},
		"far too large":        {"PUT", path, strings.Repeat(" ", 10_000), 413, "at most 1000 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			w := h.ask(c.method, c.target, c.body)
			if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("%d %s, want %d with %s", w.Code, w.Body, c.status, c.want)
			}
			if c.status == 405 && w.Header().Get("Allow") != "GET, PUT" {
				t.Errorf("Allow: %q", w.Header().Get("Allow"))
			}
		})
	}
	h.options.Configuration.Storage = configuration.Storage{"maintenance": {"readonly": map[any]any{"enabled": true}}}
	if w := h.ask("PUT", path, signature(image+"@x", "atomic", "s")); w.Code != 405 || !strings.Contains(w.Body.String(), "read-only") {
		t.Errorf("read-only: %d %s", w.Code, w.Body)
	}
}

// TestSignatures: a signature that is put is listed, once. Others than simple signing are listed
// on request.
func TestSignatures(t *testing.T) {
	h := newHouse(t)
	image := h.push("a", "application/x", "").String()
	path := "/extensions/v2/a/signatures/" + image
	put := func(id, kind string) int {
		return h.ask("PUT", path, fmt.Sprintf(`{"schemaVersion":2,"name":"%s@%s","type":%q,"content":%q}`, image, id, kind, base64.StdEncoding.EncodeToString([]byte(id)))).Code
	}
	if a, b, c := put("one", "atomic"), put("one", "atomic"), put("two", "other"); a != 201 || b != 409 || c != 201 {
		t.Errorf("created %d, again %d, another %d", a, b, c)
	}
	list := func(query string) (names []string) {
		var answer struct{ Signatures []simpleSignature }
		w := h.ask("GET", path+query, "")
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 {
			t.Fatalf("%d %s, %v", w.Code, w.Body, err)
		}
		for _, s := range answer.Signatures {
			names = append(names, strings.TrimPrefix(s.Name, image)+" "+s.Type+" "+string(s.Content))
		}
		return names
	}
	if got := list(""); len(got) != 1 || got[0] != "@one atomic one" {
		t.Errorf("simple signing: %q", got)
	}
	if got := list("?all"); len(got) != 2 {
		t.Errorf("all: %q", got)
	}
	for _, repository := range []string{"a", "secret"} {
		err := h.options.Catalog.Refer(t.Context(), catalog.Reference{Referrer: &referrers.Referrer{
			Subject: digest.Digest(image), Repository: repository, Descriptor: imagespec.Descriptor{Digest: digest.FromString(repository)},
			Signatures: []signatures.Signature{{Type: "other", Content: []byte("signed in " + repository)}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(list("?all"), "\n"); !strings.Contains(got, "signed in a") || strings.Contains(got, "secret") {
		t.Errorf("with those of repositories: %s", got)
	}
	h.push("b", "application/x", "") // the same manifest
	if got := h.ask("GET", "/extensions/v2/b/signatures/"+image+"?all", "").Body.String(); !strings.Contains(got, "[]") {
		t.Errorf("another repository has them: %s", got)
	}
	h.options.Signatures = false
	if w := h.ask("GET", path, ""); w.Code != 404 {
		t.Errorf("switched off: %d", w.Code)
	}
}

// guard lets one user pull.
type guard struct{}

func (guard) Authorized(r *http.Request, access ...auth.Access) (*auth.Grant, error) {
	if _, _, ok := r.BasicAuth(); !ok {
		return nil, challenge{}
	}
	for _, a := range access {
		if a.Action != "pull" {
			return nil, fmt.Errorf("broken")
		}
	}
	return &auth.Grant{User: auth.UserInfo{Name: "reader"}}, nil
}

var registerGuard = sync.OnceValue(func() error { // distribution keeps it in a global
	return auth.Register("guard", func(map[string]any) (auth.AccessController, error) { return guard{}, nil })
})

type challenge struct{}

func (challenge) Error() string { return "authentication required" }
func (challenge) SetHeaders(_ *http.Request, w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", "Basic")
}

// TestAuth: the registry's own access controller decides.
func TestAuth(t *testing.T) {
	if err := registerGuard(); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t)
	image := h.push("a", "application/x", "").String()
	h.options.Anonymous, h.options.Configuration.Auth = false, configuration.Auth{"guard": nil}
	e, err := New(h.options)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method string
		login  bool
		want   int
	}{{"GET", false, 401}, {"GET", true, 200}, {"PUT", true, 400}} {
		r := httptest.NewRequest(c.method, "/extensions/v2/a/signatures/"+image, nil)
		if c.login {
			r.SetBasicAuth("reader", "x")
		}
		w := httptest.NewRecorder()
		e.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
		if w.Code != c.want || (w.Header().Get("WWW-Authenticate") != "") != (c.want == 401) {
			t.Errorf("%s, logged in: %v: %d %v", c.method, c.login, w.Code, w.Header())
		}
	}
	h.options.Configuration.Auth = configuration.Auth{"unknown": nil}
	if _, err := New(h.options); err == nil || !strings.Contains(err.Error(), "auth.unknown") {
		t.Errorf("an unknown kind of auth: %v", err)
	}
}
