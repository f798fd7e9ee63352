package e2e

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

// TestHostilePaths: no way of writing a path leads from one handler to the other, or around
// its guards. Without credentials nothing is 200 but public paths.
func TestHostilePaths(t *testing.T) {
	users := htpasswdFile(t, "clerk", "secret")
	s := startWithConfig(t, plainConfig+"auth: {htpasswd: {realm: test, path: "+users+"}}\nimageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	clerk := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("clerk:secret"))}}
	digest := "sha256:" + strings.Repeat("a", 64)
	long := strings.Repeat("a", 8<<10)
	for _, test := range []struct {
		method, path     string
		anonymous, clerk int
	}{
		// As they should be written.
		{"GET", "/v2/", 401, 200},
		{"GET", "/v2/_catalog", 401, 200},
		{"GET", api + "/images", 401, 200},
		{"DELETE", api + "/images/x", 401, 403},
		{"POST", api + "/images", 401, 403},
		{"GET", "/version", 200, 200},
		{"GET", "/livez", 200, 200},
		{"GET", "/openapi/v2", 401, 200},
		{"GET", "/v2/ns/app/referrers/" + digest, 401, 200},
		{"GET", "/extensions/v2/ns/app/signatures/" + digest, 401, 404},
		{"PUT", "/extensions/v2/ns/app/signatures/" + digest, 401, 400},
		// Up and across.
		{"GET", "/v2/.." + api + "/images", 301, 301},
		{"GET", "/v2/%2e%2e" + api + "/images", 301, 301},
		{"GET", "/livez/.." + api + "/images", 404, 404},
		{"GET", "/livez/%2e%2e" + api + "/images", 404, 404},
		{"GET", "/version/.." + api + "/images", 401, 403},
		{"GET", api + "/images/../../../../../v2/_catalog", 401, 403},
		{"GET", "/apis/%2e%2e/v2/_catalog", 401, 403},
		{"GET", "/extensions/v2/ns/app/signatures/../../../../../v2/_catalog", 301, 301},
		{"GET", "/v2/ns/app/referrers/..", 401, 400},
		{"GET", "/v2/ns/app/referrers/%2e%2e", 401, 400},
		// Slashes, escaped and doubled.
		{"GET", "/" + api + "/images", 301, 301},
		{"GET", "/apis//image.openshift.io/v1/images", 401, 403},
		{"GET", strings.Replace(api, "/v1", "%2fv1", 1) + "/images", 401, 200}, // Kubernetes reads it unescaped, and authorizes it so,
		{"GET", "/apis%2fimage.openshift.io/v1/images", 404, 404},
		{"GET", "/%61pis/image.openshift.io/v1/images", 404, 404},
		{"GET", api + "/images/%2e%2e%2f", 401, 400},
		{"GET", "/v2/ns%2fapp/referrers/" + digest, 404, 404},
		{"GET", "/extensions%2fv2/ns/app/signatures/" + digest, 404, 404},
		{"GET", "/extensions/v2/ns%2fapp/signatures/" + digest, 404, 404},
		// Other letters, other ends.
		{"GET", "/APIS/image.openshift.io/v1/images", 404, 404},
		{"GET", "/Apis/image.openshift.io/v1/images", 404, 404},
		{"GET", "/apisimage.openshift.io/v1/images", 404, 404},
		{"GET", "/Extensions/v2/ns/app/signatures/" + digest, 404, 404},
		{"GET", "/v2/NS/app/referrers/" + digest, 401, 200},
		{"GET", api + "/images;x=y", 401, 403},
		{"GET", api + "/images%00", 401, 403},
		{"GET", api + "/images\\..\\x", 401, 403},
		// Long ones.
		{"GET", api + "/images/" + long, 401, 404},
		{"GET", "/v2/" + long + "/referrers/" + digest, 401, 200},
		{"GET", "/v2/ns/app/referrers/" + long, 401, 400},
		{"GET", "/extensions/v2/" + long + "/signatures/" + digest, 401, 400},
		// Methods.
		{"TRACE", api + "/images", 401, 403},
		{"CONNECT", "/v2/", 301, 301},
		{"POST", "/v2/ns/app/referrers/" + digest, 405, 405},
		{"DELETE", "/extensions/v2/ns/app/signatures/" + digest, 405, 405},
		{"GET", "/debug/pprof", 404, 404},
		{"GET", "/metrics", 404, 404},
	} {
		for who, want := range map[string]int{"anonymous": test.anonymous, "clerk": test.clerk} {
			header := http.Header{}
			if who == "clerk" {
				header = clerk.Clone()
			}
			got := s.raw(test.method, test.path, header)
			if got != want {
				t.Errorf("%s: %s %.80s: %d, want %d", who, test.method, test.path, got, want)
			}
		}
	}
}

// raw sends a request without following redirections and returns the status.
func (s *server) raw(method, path string, header http.Header) int {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url(""), http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	request.URL.Opaque = "//" + s.addr + path
	request.Header = header
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		s.t.Fatal(err)
	}
	return response.StatusCode
}
