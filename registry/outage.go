package registry

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// outage notes, on a request's context, that the request failed because it could
// not be recorded. distribution answers a failure to tag with 500 whatever the
// error; withOutage makes that the 503 that it is.
type outage struct{ err atomic.Pointer[errcode.Error] }

type outageKey struct{}

// unavailable is the registry's error for a change that could not be recorded.
func unavailable(ctx context.Context, m marker, err error) error {
	failure := errcode.ErrorCodeUnavailable.WithMessage(fmt.Sprintf(
		"the image store is not available, so %s could not be recorded; push again: %v", m.Repository, err))
	if o, ok := ctx.Value(outageKey{}).(*outage); ok {
		o.err.Store(&failure)
	}
	return failure
}

// withOutage answers requests that met an outage with 503 and Retry-After.
func withOutage(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut {
			next.ServeHTTP(w, r)
			return
		}
		o := &outage{}
		next.ServeHTTP(&outageWriter{ResponseWriter: w, outage: o}, r.WithContext(context.WithValue(r.Context(), outageKey{}, o)))
	})
}

// outageWriter replaces a failed answer by the outage's.
type outageWriter struct {
	http.ResponseWriter
	outage   *outage
	replaced bool
}

// Unwrap lets http.ResponseController find the connection.
func (w *outageWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *outageWriter) WriteHeader(status int) {
	failure := w.outage.err.Load()
	if failure == nil || status < http.StatusBadRequest {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.replaced = true
	w.Header().Set("Retry-After", "1")
	w.Header().Del("Content-Length")
	_ = errcode.ServeJSON(w.ResponseWriter, errcode.Errors{*failure}) // the client has left if this fails
}

// Write implements http.ResponseWriter.
func (w *outageWriter) Write(p []byte) (int, error) {
	if w.replaced {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}
