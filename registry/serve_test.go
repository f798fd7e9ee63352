package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
