package extensions

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"

	"tallyman/registry/prune"
)

// unanswering is a storage that does not answer.
type unanswering struct{ driver.StorageDriver }

// Stat implements driver.StorageDriver.
func (unanswering) Stat(context.Context, string) (driver.FileInfo, error) {
	return nil, errors.New("secret address")
}

// TestDeleteBlob: a blob that no repository has is deleted for those who may delete all Images.
func TestDeleteBlob(t *testing.T) {
	h := newHouse(t)
	used := h.push("team/app", "application/a", "")
	free := digest.FromString("free")
	data := "/docker/registry/v2/blobs/sha256/" + free.Encoded()[:2] + "/" + free.Encoded() + "/data"
	if err := h.tracker.Driver().PutContent(t.Context(), data, []byte("free")); err != nil {
		t.Fatal(err)
	}
	h.options.MayDelete = func(r *http.Request) (string, bool) {
		_, token, _ := r.BasicAuth()
		return token, token == "pruner"
	}
	h.options.Pruner = prune.New(prune.Options{Driver: h.tracker.Driver()})
	send := func(method, user, name string) *httptest.ResponseRecorder {
		t.Helper()
		e, err := New(h.options)
		if err != nil {
			t.Fatal(err)
		}
		r, w := httptest.NewRequest(method, "/admin/blobs/"+name, nil), httptest.NewRecorder()
		if user != "" {
			r.SetBasicAuth("unused", user)
		}
		e.Handler(http.NotFoundHandler()).ServeHTTP(w, r)
		return w
	}
	for name, test := range map[string]struct {
		method, user, digest string
		keeps                string
		status               int
		text, header         string
	}{
		"without a user":        {http.MethodDelete, "", free.String(), "", 401, "UNAUTHORIZED", "Basic"},
		"another user":          {http.MethodDelete, "reader", free.String(), "", 403, "reader may not delete all images", ""},
		"no digest":             {http.MethodDelete, "pruner", "latest", "", 400, "DIGEST_INVALID", ""},
		"another method":        {http.MethodGet, "pruner", free.String(), "", 405, "UNSUPPORTED", "DELETE"},
		"a registry that keeps": {http.MethodDelete, "pruner", free.String(), "it is read-only", 405, "it is read-only", ""},
		"one of a repository":   {http.MethodDelete, "pruner", used.String(), "", 409, "the blob is in use: repository team/app has a link to it", ""},
		"none":                  {http.MethodDelete, "pruner", digest.FromString("none").String(), "", 404, "BLOB_UNKNOWN", ""},
	} {
		h.options.KeepsBlobs = test.keeps
		w := send(test.method, test.user, test.digest)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.text) || w.Header().Get("X-Content-Type-Options") != "nosniff" ||
			!strings.Contains(w.Header().Get("WWW-Authenticate")+w.Header().Get("Allow"), test.header) {
			t.Errorf("%s: %d %s %v", name, w.Code, w.Body, w.Header())
		}
	}
	h.options.KeepsBlobs = ""
	if w := send(http.MethodDelete, "pruner", free.String()); w.Code != http.StatusNoContent || w.Body.Len() > 0 {
		t.Errorf("a free one: %d %s", w.Code, w.Body)
	}
	if w := send(http.MethodDelete, "pruner", free.String()); w.Code != http.StatusNotFound {
		t.Errorf("once more: %d %s", w.Code, w.Body)
	}
	h.options.Pruner = prune.New(prune.Options{Driver: unanswering{inmemory.New()}})
	if w := send(http.MethodDelete, "pruner", free.String()); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "secret") {
		t.Errorf("a storage that does not answer: %d %s", w.Code, w.Body)
	}
}
