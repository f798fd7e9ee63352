// Package extensions serves the registry's endpoints besides distribution's own: the referrers
// API of the distribution-spec, the signature endpoint of skopeo and podman, and OpenShift's deletion of blobs.
package extensions

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	"github.com/distribution/reference"
	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/catalog"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/server"
	"tallyman/registry/logging"
	"tallyman/registry/prune"
	"tallyman/registry/tracker"
)

// Options configures New.
type Options struct {
	// Configuration is distribution's. Required.
	Configuration *configuration.Configuration
	// Tracker has the registry. Required.
	Tracker *tracker.Tracker
	// Catalog has the signatures of Images, and Referrers the referrers. Required.
	Catalog   *catalog.Catalog
	Referrers *referrers.Store
	// Anonymous lets everybody do everything: the configuration has no auth.
	Anonymous bool
	// SignatureLimit is how many bytes a signature may have. Required.
	SignatureLimit int64
	// Signatures switches the signature endpoint on.
	Signatures bool
	// MayDelete returns the user of a request, "" if nobody knows it, and whether it may delete all Images, and
	// so blobs. Required.
	MayDelete func(r *http.Request) (user string, ok bool)
	// Pruner deletes blobs. Required.
	Pruner *prune.Pruner
	// KeepsBlobs is the reason for which no blobs are deleted, "" if they are.
	KeepsBlobs string
}

// Extensions are the registry's endpoints besides distribution's own: the referrers API, the endpoint for simple
// signing signatures, which the registry's own auth protects, and that for the deletion of blobs.
type Extensions struct {
	options  Options
	access   auth.AccessController // nil: everybody may do everything
	headers  http.Header           // on every answer, as the configuration says
	prefix   string                // before /v2 and /extensions, without a slash at its end
	readOnly bool
	places   *places
}

// New returns the Extensions. It fails if the configuration's auth cannot be set up.
func New(o Options) (*Extensions, error) {
	c := o.Configuration
	e := &Extensions{
		options: o, headers: c.HTTP.Headers, prefix: strings.TrimRight(c.HTTP.Prefix, "/"), readOnly: isReadOnly(c),
		places: newPlaces(),
	}
	if o.Anonymous {
		return e, nil
	}
	var err error
	if e.access, err = auth.GetAccessController(c.Auth.Type(), c.Auth.Parameters()); err != nil {
		return nil, fmt.Errorf("auth.%s: %w", c.Auth.Type(), err)
	}
	return e, nil
}

// isReadOnly follows distribution's handlers.NewApp.
func isReadOnly(c *configuration.Configuration) bool {
	readOnly, ok := c.Storage["maintenance"]["readonly"].(map[any]any)
	enabled, _ := readOnly["enabled"].(bool)
	return ok && enabled
}

// Handler answers the endpoints' paths and hands all others to next. A pull-through cache has no
// endpoints: it knows of the referrers and signatures alone that clients have fetched, and a client
// that gets no answer looks for them by tag, which the cache fetches.
func (e *Extensions) Handler(next http.Handler) http.Handler {
	if e.options.Tracker.PullThrough() {
		return next
	}
	router := mux.NewRouter().SkipClean(true).UseEncodedPath()
	route := func(path string, h http.Handler) {
		if !e.options.Configuration.Log.AccessLog.Disabled {
			h = server.LogRequests(h, "registry request")
		}
		router.Handle(path, h)
	}
	name := "{name:" + reference.NameRegexp.String() + "}"
	route(e.prefix+"/v2/"+name+"/referrers/{digest:[^/]+}", e.guard(map[string]endpoint{
		http.MethodGet: {"pull", e.getReferrers}, http.MethodHead: {"pull", e.getReferrers},
	}))
	if e.options.Signatures {
		route(e.prefix+"/extensions/v2/"+name+"/signatures/{digest:[^/]+}", e.guard(map[string]endpoint{
			http.MethodGet: {"pull", e.getSignatures}, http.MethodPut: {"push", e.putSignature},
		}))
	}
	route(e.prefix+"/admin/blobs/{digest:[^/]+}", http.HandlerFunc(e.deleteBlob))
	router.NotFoundHandler = next
	return router
}

// endpoint is a method on a path: the action on the repository that it requires, and its
// handler.
type endpoint struct {
	action string
	serve  func(w http.ResponseWriter, r *http.Request, repository string, name digest.Digest)
}

// guard picks the endpoint, asks the registry's auth, and reads the path.
func (e *Extensions) guard(methods map[string]endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.setHeaders(w)
		method, ok := methods[r.Method]
		if !ok {
			w.Header().Set("Allow", strings.Join(slices.Sorted(maps.Keys(methods)), ", "))
			fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "The operation is unsupported.", nil)
			return
		}
		repository := mux.Vars(r)["name"]
		r, ok = e.authorized(w, r, repository, method.action)
		if !ok {
			return
		}
		name, err := digestOf(mux.Vars(r)["digest"])
		if err != nil {
			fail(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content", err.Error())
			return
		}
		free, ok := e.places.take(r.Context(), clientOf(r))
		if !ok {
			return // nobody waits for the answer
		}
		defer free()
		method.serve(w, r, repository, name)
	})
}

// setHeaders sets those of every answer.
func (e *Extensions) setHeaders(w http.ResponseWriter) {
	for key, values := range e.headers {
		w.Header()[http.CanonicalHeaderKey(key)] = values
	}
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
}

// clientOf returns the user of a request, or, without one, the address that it comes from.
func clientOf(r *http.Request) string {
	if user := logging.User(r.Context()); user != "" {
		return "user " + user
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// digestOf reads a digest as it is in a path, escaped or not.
func digestOf(segment string) (digest.Digest, error) {
	plain, err := url.PathUnescape(segment)
	if err != nil {
		return "", err
	}
	return digest.Parse(plain)
}

// authorized asks the registry's access controller as distribution's own handlers do
// (handlers.App.authorized). It has answered if it returns false.
func (e *Extensions) authorized(w http.ResponseWriter, r *http.Request, repository, action string) (*http.Request, bool) {
	if e.access == nil {
		return r, true
	}
	resource := auth.Resource{Type: "repository", Name: repository}
	records := []auth.Access{{Resource: resource, Action: "pull"}}
	if action == "push" {
		records = append(records, auth.Access{Resource: resource, Action: "push"})
	}
	grant, err := e.access.Authorized(r, records...)
	var challenge auth.Challenge
	if errors.As(err, &challenge) {
		challenge.SetHeaders(r, w)
		fail(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required", records)
		return r, false
	}
	if err != nil || grant == nil {
		// As distribution: a fault of the controller is not to be explained.
		logging.For(r.Context()).Error("error checking authorization", "err", err)
		w.WriteHeader(http.StatusBadRequest)
		return r, false
	}
	return r.WithContext(logging.WithUser(r.Context(), grant.User.Name)), true
}

// fail answers with an error in the registry's form (distribution-spec, Error Codes).
func fail(w http.ResponseWriter, status int, code, message string, detail any) {
	type failure struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Detail  any    `json:"detail,omitempty"`
	}
	writeJSON(w, status, "application/json", map[string][]failure{"errors": {{code, message, detail}}})
}

func writeJSON(w http.ResponseWriter, status int, contentType string, value any) {
	content, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(content) // the client has left if this fails
}
