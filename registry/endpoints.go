package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/auth"
	"github.com/distribution/reference"
	"github.com/gorilla/mux"
	"github.com/opencontainers/go-digest"

	"tallyman/imageapi"
)

// endpoints are the registry's endpoints besides distribution's own: the referrers API, and
// the endpoint for simple signing signatures. The registry's own auth protects them.
type endpoints struct {
	recorder *Recorder
	access   auth.AccessController // nil: everybody may do everything
	headers  http.Header           // on every answer, as the configuration says
	readOnly bool
}

func newEndpoints(c *configuration.Configuration, r *Recorder) (*endpoints, error) {
	e := &endpoints{recorder: r, headers: c.HTTP.Headers, readOnly: isReadOnly(c)}
	if AnonymousPull(c) {
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

// handler answers the endpoints' paths and hands all others to next. withSignatures
// is false if the signature endpoint is switched off.
func (e *endpoints) handler(next http.Handler, withSignatures, accessLog bool) http.Handler {
	router := mux.NewRouter().SkipClean(true).UseEncodedPath()
	route := func(path string, h http.Handler) {
		if accessLog {
			h = imageapi.LogRequests(h, "registry request")
		}
		router.Handle(path, h)
	}
	name := "{name:" + reference.NameRegexp.String() + "}"
	route("/v2/"+name+"/referrers/{digest:[^/]+}", e.guard(map[string]endpoint{
		http.MethodGet: {"pull", e.getReferrers}, http.MethodHead: {"pull", e.getReferrers},
	}))
	if withSignatures {
		route("/extensions/v2/"+name+"/signatures/{digest:[^/]+}", e.guard(map[string]endpoint{
			http.MethodGet: {"pull", e.getSignatures}, http.MethodPut: {"push", e.putSignature},
		}))
	}
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
func (e *endpoints) guard(methods map[string]endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for key, values := range e.headers {
			w.Header()[http.CanonicalHeaderKey(key)] = values
		}
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
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
		method.serve(w, r, repository, name)
	})
}

// digestOf reads a digest as it is in a path, escaped or not.
func digestOf(segment string) (digest.Digest, error) {
	plain, err := url.PathUnescape(segment)
	if err != nil {
		return "", err
	}
	return digest.Parse(plain)
}

type userKey struct{}

// authorized asks the registry's access controller as distribution's own handlers do
// (handlers.App.authorized). It has answered if it returns false.
func (e *endpoints) authorized(w http.ResponseWriter, r *http.Request, repository, action string) (*http.Request, bool) {
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
		log(r.Context()).Error("error checking authorization", "err", err)
		w.WriteHeader(http.StatusBadRequest)
		return r, false
	}
	return r.WithContext(context.WithValue(r.Context(), userKey{}, grant.User.Name)), true
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
