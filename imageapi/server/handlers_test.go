package server

import "testing"

func TestIsAPI(t *testing.T) {
	for path, want := range map[string]bool{
		"/apis": true, "/apis/": true, "/apis/image.openshift.io/v1/images/sha256%3Aabc": true, "/api": true, "/api/v1": true, "/openapi/v3": true, "/readyz/store": true, "/version": true,
		"": false, "/": false, "/v2/": false, "/v2/apis/manifests/v1": false, "/apisx": false, "/readyz%2Fstore": false, "/%61pis": false, "apis": false,
	} {
		if got := isAPI(path); got != want {
			t.Errorf("%q: %t, want %t", path, got, want)
		}
	}
}
