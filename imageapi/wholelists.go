package imageapi

import (
	"net/http"
	"strconv"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
)

const (
	// wholeLists is the number of concurrent lists that are assembled in memory, and
	// wholeListWait the time that further ones wait for a slot.
	wholeLists    = 1
	wholeListWait = 10 * time.Second
	// smallList is the largest limit of a list that needs no slot.
	smallList = 1000
)

// withWholeLists queues lists that are assembled in memory: tables, metadata, protobuf and
// CBOR without a small limit. Eight concurrent lists need the memory of one. A list that
// waits too long is answered 429.
func withWholeLists(next http.Handler, c *server.Config) http.Handler {
	slots := make(chan struct{}, wholeLists)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		limit, err := strconv.ParseInt(r.URL.Query().Get("limit"), 10, 64)
		if !ok || info.Verb != "list" || wantsPlainObjects(r.Context()) || err == nil && limit > 0 && limit <= smallList {
			next.ServeHTTP(w, r)
			return
		}
		wait := time.NewTimer(wholeListWait)
		defer wait.Stop()
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		case <-wait.C:
			err := apierrors.NewTooManyRequests("another list of everything in this format is under way: try again later, ask for pages by limit, or for JSON or YAML", retryAfter)
			drop(w, r, info, false, err, c)
		}
	})
}
