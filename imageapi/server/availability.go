package server

import (
	"net/http"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// aggregatorUser is the user as whom kube-apiserver's aggregator asks whether a server is available
// (https://github.com/kubernetes/kubernetes/blob/v1.37.2/staging/src/k8s.io/kube-aggregator/pkg/controllers/status/remote/remote_available_controller.go).
const aggregatorUser = "system:kube-aggregator"

// withAvailability answers the aggregator, which asks for our group's discovery, with 503 while
// ready fails. The APIService is not Available then, and clients are told so at once; the registry
// is ready all the same.
func withAvailability(next http.Handler, ready func() error) http.Handler {
	path := "/apis/" + imagev1.GroupVersion.String()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, ok := request.UserFrom(r.Context()); r.URL.Path == path && ok && u.GetName() == aggregatorUser && ready() != nil {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "the image store is not available", http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}
