package server

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/felixge/httpsnoop"
	"github.com/google/uuid"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
	serverfilters "k8s.io/apiserver/pkg/server/filters"

	"tallyman/imageapi/rest"
)

// prefixes are the paths that the API answers; everything else is the registry's.
var prefixes = []string{"/apis", "/api", "/openapi", "/version", "/livez", "/readyz", "/healthz"}

// Handler returns a handler that answers the API's paths and hands all others to
// next. Names with escaped characters (sha256%3A…) reach the API as sent.
func (s *Server) Handler(next http.Handler) http.Handler {
	api := withRequestID(s.handler)
	if s.options.AccessLog {
		api = withAccessLog(api, "api request")
	}
	return withStack(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isAPI(r.URL.EscapedPath()) {
			api.ServeHTTP(w, r)
		} else {
			next.ServeHTTP(w, r)
		}
	}))
}

// isAPI reports whether a path is below one of prefixes.
func isAPI(path string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		rest, ok := strings.CutPrefix(path, prefix)
		return ok && (rest == "" || rest[0] == '/')
	})
}

// buildHandlerChain is upstream's DefaultBuildHandlerChain without the filters
// that have nothing to do here (CORS, HSTS, priority and fairness) and those that cost
// more than a whole read of stored bytes (tracing and latency trackers, a goroutine for
// each request).
func (s *Server) buildHandlerChain(api http.Handler, c *server.Config) http.Handler {
	unauthorized := withChallenge(apifilters.Unauthorized(c.Serializer), s.options.Access.Challenges)
	unauthenticated := apifilters.WithFailedAuthenticationAudit(unauthorized, c.AuditBackend, c.AuditPolicyRuleEvaluator)
	h := withAvailability(api, s.options.Images.ReadinessCheck)
	h = rest.WithPlainObjects(h)
	h = rest.WithLists(h, append(s.options.Streams.Listed(), s.options.Images.Listed())...)
	h = withSignaturePatches(h, c.MaxRequestBodyBytes)
	h = apifilters.WithAuthorization(h, c.Authorization.Authorizer, c.Serializer)
	h = s.withLogin(h, c.Authorization.Authorizer, unauthorized)
	h = impersonation.WithImpersonation(h, c.Authorization.Authorizer, c.Serializer)
	h = serverfilters.WithMaxInFlightLimit(h, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, c.LongRunningFunc)
	h = withLimits(h, &s.options.Limits, c)
	h = apifilters.WithAudit(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)
	h = apifilters.WithAuthentication(h, c.Authentication.Authenticator, unauthenticated, c.Authentication.APIAudiences, nil)
	h = apifilters.WithWarningRecorder(h)
	h = apifilters.WithRequestDeadline(h, c.AuditBackend, c.AuditPolicyRuleEvaluator, withoutDeadline(c.LongRunningFunc), c.Serializer, c.RequestTimeout)
	h = serverfilters.WithWaitGroup(h, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	h = apifilters.WithCacheControl(h)
	h = apifilters.WithRequestInfo(h, c.RequestInfoResolver)
	h = apifilters.WithRequestReceivedTimestamp(h)
	h = withDeadlines(h, &s.options.Limits)
	h = serverfilters.WithPanicRecovery(h, c.RequestInfoResolver)
	return apifilters.WithAuditInit(h)
}

// withoutDeadline reports whether a request has no time limit as a whole: watches, and lists,
// which take as long as the client reads. Limits.WriteTimeout bounds both. A client may still
// ask for a limit.
func withoutDeadline(longRunning request.LongRunningRequestCheck) request.LongRunningRequestCheck {
	return func(r *http.Request, info *request.RequestInfo) bool {
		return longRunning(r, info) || info.Verb == "list" && !r.URL.Query().Has("timeout")
	}
}

// withChallenge names the schemes that credentials can be sent in (RFC 9110,
// section 11.6.1).
func withChallenge(next http.Handler, challenges []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, challenge := range challenges {
			w.Header().Add("WWW-Authenticate", challenge)
		}
		next.ServeHTTP(w, r)
	})
}

// withLogin answers 401 instead of 403 to requests without credentials, where nothing is
// allowed without credentials.
func (s *Server) withLogin(next http.Handler, a authorizer.Authorizer, unauthorized http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, ok := request.UserFrom(r.Context())
		if ok && u.GetName() == user.Anonymous && s.options.Access.HasUsers && !s.options.Access.ServesAnonymous() {
			attributes, err := apifilters.GetAuthorizerAttributes(r.Context())
			if err == nil {
				if decision, _, err := a.Authorize(r.Context(), attributes); err != nil || decision != authorizer.DecisionAllow {
					unauthorized.ServeHTTP(w, r)
					return
				}
			}
		}
		next.ServeHTTP(w, r)
	})
}

// withStack gives the goroutine of a request the stack that the chain of handlers needs, while there is next to
// nothing on it. Otherwise it is copied three times on the way, which is an eighth of the CPU of a GET of an Image.
func withStack(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		growStack(len(r.URL.Path))
		next.ServeHTTP(w, r)
	})
}

// growStack has a frame of 24 KiB, for which the runtime grows the stack. n keeps the compiler from leaving it out.
//
//go:noinline
func growStack(n int) byte {
	var frame [24 << 10]byte
	return frame[n%len(frame)]
}

// withRequestID gives the request the id that logs and the answer's Audit-ID
// carry; a client may bring its own.
func withRequestID(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(auditinternal.HeaderAuditID) == "" {
			r.Header.Set(auditinternal.HeaderAuditID, uuid.NewString())
		}
		next.ServeHTTP(w, r)
	})
}

// LogRequests gives requests an id and logs each as the API's are, under another
// message.
func LogRequests(next http.Handler, message string) http.Handler {
	return withRequestID(withAccessLog(next, message))
}

// withAccessLog logs each request when it has ended, health checks excepted.
func withAccessLog(next http.Handler, message string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isHealth(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		measured := httpsnoop.CaptureMetrics(next, w, r)
		level := slog.LevelInfo
		if isDiscovery(r.URL.Path) && measured.Code < http.StatusBadRequest {
			level = slog.LevelDebug // kube-apiserver's aggregator asks every few seconds
		}
		slog.Log(r.Context(), level, message,
			"http.request.id", r.Header.Get(auditinternal.HeaderAuditID), // withRequestID has set it
			"http.request.method", r.Method,
			"http.request.uri", r.URL.RequestURI(),
			"http.request.remoteaddr", r.RemoteAddr,
			"http.request.useragent", r.UserAgent(),
			"http.response.status", measured.Code,
			"http.response.written", measured.Written,
			"http.response.duration", measured.Duration.Round(time.Microsecond).String(),
		)
	})
}

// isHealth reports whether a path is that of a health check, or of one part of it.
func isHealth(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first == "healthz" || first == "livez" || first == "readyz"
}

// isDiscovery reports whether a path of the API is about the API itself: groups, versions,
// schemas.
func isDiscovery(path string) bool {
	switch segments := strings.Split(strings.Trim(path, "/"), "/"); segments[0] {
	case "api", "apis":
		return len(segments) <= 3
	case "openapi", "version":
		return true
	}
	return false
}
