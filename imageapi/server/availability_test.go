package server

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// TestAvailability: the aggregator alone is told that the store is away, where it asks.
func TestAvailability(t *testing.T) {
	var ready error
	handler := withAvailability(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), func() error { return ready })
	const path = "/apis/image.openshift.io/v1"
	for _, c := range []struct {
		user, path string
		ready      error
		want       int
	}{
		{aggregatorUser, path, nil, 200},
		{aggregatorUser, path, errors.New("away"), 503},
		{aggregatorUser, "/apis", errors.New("away"), 200},
		{aggregatorUser, path + "/images", errors.New("away"), 200},
		{"alice", path, errors.New("away"), 200},
		{"", path, errors.New("away"), 200},
	} {
		ready = c.ready
		r := httptest.NewRequest("GET", c.path, nil)
		if c.user != "" {
			r = r.WithContext(request.WithUser(r.Context(), &user.DefaultInfo{Name: c.user}))
		}
		w := httptest.NewRecorder()
		if handler.ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%+v: %d", c, w.Code)
		}
	}
}
