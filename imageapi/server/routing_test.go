package server

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiserver/pkg/server"

	"tallyman/imageapi"
)

// FuzzRouting: every path reaches one handler. If that is the API's, it is by its first
// segment as sent, and the authorized path is the path that is served.
func FuzzRouting(f *testing.F) {
	for _, seed := range []string{
		"/apis/image.openshift.io/v1/images", "/v2/a/manifests/v1", "/apis%2fx", "//apis/x", "/v2/../apis/x", "/apis/../v2/x", "/apis/%2e%2e/v2/x",
		"/APIS/x", "/apis;x/y", "/version", "/versions", "/livez/../apis", "/extensions/v2/a", "/%61pis/x", "/apis\\..\\v2",
	} {
		f.Add(seed)
	}
	resolver := server.NewRequestInfoResolver(server.NewConfig(imageapi.Codecs))
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path) // as net/http reads it
		if err != nil || !strings.HasPrefix(path, "/") {
			return
		}
		var api, registry int
		s := &Server{handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			api++
			info, err := resolver.NewRequestInfo(r)
			if err != nil {
				return // then it is 500, and nothing is served
			}
			if info.Path != r.URL.Path {
				t.Errorf("%q is authorized as %q and served as %q", path, info.Path, r.URL.Path)
			}
		})}
		handler := s.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { registry++ }))
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL = u
		handler.ServeHTTP(httptest.NewRecorder(), r)
		if api+registry != 1 {
			t.Errorf("%q reaches the API %d times and the registry %d times", path, api, registry)
		}
		first, _, _ := strings.Cut(strings.TrimPrefix(u.EscapedPath(), "/"), "/")
		if want := slices.Contains(prefixes, "/"+first); want != (api == 1) {
			t.Errorf("%q reaches the API: %t", path, api == 1)
		}
	})
}
