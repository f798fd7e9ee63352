package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"

	"tallyman/registry/tracker"
)

// TestOutage: a request that met an outage is 503 with Retry-After, with any status of
// distribution; others are left alone.
func TestOutage(t *testing.T) {
	for name, test := range map[string]struct {
		fails  bool
		status int
		want   int
	}{
		"an outage that became 500": {true, http.StatusInternalServerError, http.StatusServiceUnavailable},
		"a failure of another kind": {false, http.StatusInternalServerError, http.StatusInternalServerError},
		"a success":                 {false, http.StatusCreated, http.StatusCreated},
	} {
		t.Run(name, func(t *testing.T) {
			handler := withPutNotes(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if test.fails {
					_ = unavailable(r.Context(), &tracker.UnavailableError{Repository: "a", Err: errDown})
				}
				w.WriteHeader(test.status)
				_, _ = io.WriteString(w, "distribution's own")
			}))
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodPut, "/v2/a/manifests/x", nil))
			if recorder.Code != test.want || (recorder.Header().Get("Retry-After") != "") != test.fails {
				t.Errorf("%d, %v", recorder.Code, recorder.Header())
			}
			if got := recorder.Body.String(); strings.Contains(got, `"code":"UNAVAILABLE"`) != test.fails || strings.Contains(got, "distribution's") == test.fails {
				t.Errorf("the body is %s", got)
			}
		})
	}
}

// TestKeepsBlobs: blobs are deleted only where distribution would hear of it.
func TestKeepsBlobs(t *testing.T) {
	for text, want := range map[string]string{
		"{filesystem: {}}":                          "storage.delete.enabled is not true",
		"{filesystem: {}, delete: {enabled: true}}": "",
		"{filesystem: {}, delete: {enabled: true}, cache: {blobdescriptor: redis}}":                 "",
		"{filesystem: {}, delete: {enabled: true}, cache: {blobdescriptor: inmemory}}":              "storage.cache.blobdescriptor is inmemory",
		"{filesystem: {}, delete: {enabled: true}, cache: {layerinfo: inmemory}}":                   "storage.cache.blobdescriptor is inmemory",
		"{filesystem: {}, delete: {enabled: true}, maintenance: {readonly: {enabled: true}}}":       "the registry is read-only",
		"{filesystem: {}, delete: {enabled: false}, maintenance: {readonly: {enabled: false}}}":     "storage.delete.enabled is not true",
		"{filesystem: {}, delete: {enabled: true}, maintenance: {uploadpurging: {enabled: false}}}": "",
	} {
		c, err := configuration.Parse(strings.NewReader("version: 0.1\nstorage: " + text + "\n"))
		if err != nil {
			t.Fatal(err)
		}
		if got := keepsBlobs(c, newChanges(c, nil)); !strings.HasPrefix(got, want) || (got == "") != (want == "") {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
