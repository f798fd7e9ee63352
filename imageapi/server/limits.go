package server

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"
)

// Limits bounds concurrent requests, so that no client can starve the others. Excess requests
// are answered 429 with Retry-After, which client-go honours. Zero is no limit. Members of
// system:masters are not limited.
type Limits struct {
	// Requests is how many reads, and MutatingRequests how many writes, there may be;
	// watches are not counted. As kube-apiserver's --max-requests-inflight and
	// --max-mutating-requests-inflight.
	Requests, MutatingRequests int
	// RequestsPerUser is how many of them one user may have.
	RequestsPerUser int
	// Watches is how many watches there may be, and WatchesPerUser how many one user
	// may have.
	Watches, WatchesPerUser int
	// BodyTimeout bounds the arrival of a request's body, and WriteTimeout the wait for
	// a client to take the next part of an answer.
	BodyTimeout, WriteTimeout time.Duration
}

// retryAfter is when to try again, in seconds.
const retryAfter = 1

// inFlight counts requests of one kind.
type inFlight struct {
	kind           string
	limit, perUser int

	mu    sync.Mutex
	all   int
	users map[string]int
}

func newInFlight(kind string, limit, perUser int) *inFlight {
	return &inFlight{kind: kind, limit: limit, perUser: perUser, users: map[string]int{}}
}

// enter counts one more request of a user, or says why there may be none.
func (u *inFlight) enter(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.perUser > 0 && u.users[name] >= u.perUser:
		return errors.NewTooManyRequests(fmt.Sprintf("%d %s of yours are in flight, the limit for one user", u.users[name], u.kind), retryAfter)
	case u.limit > 0 && u.all >= u.limit:
		return errors.NewTooManyRequests(fmt.Sprintf("%d %s are in flight, the limit for all users", u.all, u.kind), retryAfter)
	}
	u.all++
	u.users[name]++
	return nil
}

func (u *inFlight) leave(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.all--
	if u.users[name]--; u.users[name] == 0 {
		delete(u.users, name)
	}
}

// limiter is Limits at work.
type limiter struct {
	requests, watches *inFlight
	// initializing are the watches that have not sent their initial state yet. That costs as
	// much as a list; later they cost little.
	initializing *inFlight
}

// enter counts a request until leave is called, or says why there may be none.
func (l *limiter) enter(r *http.Request, name string, watch bool) (admitted *http.Request, leave func(), err error) {
	if !watch {
		return r, func() { l.requests.leave(name) }, l.requests.enter(name)
	}
	if err := l.watches.enter(name); err != nil {
		return nil, nil, err
	}
	if err := l.initializing.enter(name); err != nil {
		l.watches.leave(name)
		return nil, nil, err
	}
	begun := initialized(sync.OnceFunc(func() { l.initializing.leave(name) }))
	return r.WithContext(utilflowcontrol.WithInitializationSignal(r.Context(), begun)), func() {
		begun()
		l.watches.leave(name)
	}, nil
}

// initialized is called when a watch has sent its initial state.
type initialized func()

// Signal implements utilflowcontrol.InitializationSignal.
func (f initialized) Signal() { f() }

// Wait implements utilflowcontrol.InitializationSignal. Nobody waits.
func (initialized) Wait() {}

// withLimits turns away excess requests. Upstream's filter has the limits for all users
// together.
func withLimits(next http.Handler, l *Limits, c *server.Config) http.Handler {
	limits := &limiter{
		requests:     newInFlight("requests", 0, l.RequestsPerUser),
		watches:      newInFlight("watches", l.Watches, l.WatchesPerUser),
		initializing: newInFlight("initializing watches", l.Requests, l.RequestsPerUser),
	}
	reading := sets.New("get", "list", "watch")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, known := request.RequestInfoFrom(r.Context())
		u, authenticated := request.UserFrom(r.Context())
		if !known || !authenticated || isHealth(info.Path) || slices.Contains(u.GetGroups(), user.SystemPrivilegedGroup) {
			next.ServeHTTP(w, r)
			return
		}
		admitted, leave, err := limits.enter(r, clientName(u, r), c.LongRunningFunc(r, info))
		if err != nil {
			drop(w, r, info, !reading.Has(info.Verb), err, c)
			return
		}
		defer leave()
		next.ServeHTTP(w, admitted)
	})
}

// drop turns a request away with err, and counts it.
func drop(w http.ResponseWriter, r *http.Request, info *request.RequestInfo, mutating bool, err error, c *server.Config) {
	metrics.RecordDroppedRequest(r, info, metrics.APIServerComponent, mutating)
	responsewriters.ErrorNegotiated(err, c.Serializer, schema.GroupVersion{Group: info.APIGroup, Version: info.APIVersion}, w, r)
}

// clientName is whose requests are counted together: a user's, and for those without
// credentials those from one address.
func clientName(u user.Info, r *http.Request) string {
	if u.GetName() != user.Anonymous {
		return u.GetName()
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr // a Unix socket has no port
	}
	return user.Anonymous + " " + host
}
