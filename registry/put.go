package registry

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"

	"tallyman/registry/tracker"
)

// putNotes carry additions of the middleware to the answer of a PUT, in the request's context,
// because distribution has no place for them.
type putNotes struct {
	// failure is set if the request failed because it could not be recorded, or is denied by a rule.
	// distribution answers any failure to tag with 500; these are 503 and 403.
	failure atomic.Pointer[errcode.Error]
	// subject is that of the manifest which was put (distribution-spec, Pushing
	// Manifests with Subject).
	subject atomic.Pointer[digest.Digest]
	// tags are those of the manifest that is deleted.
	tags atomic.Pointer[notedTags]
}

type putNotesKey struct{}

// unavailable makes the registry's error of a change that could not be recorded, and notes it.
// Other errors stay as they are.
func unavailable(ctx context.Context, err error) error {
	var outage *tracker.UnavailableError
	if !errors.As(err, &outage) {
		return err
	}
	return unavailableFor(ctx)
}

// unavailableFor makes that error. The log says why: how the store is reached is not for clients.
func unavailableFor(ctx context.Context) error {
	failure := errcode.ErrorCodeUnavailable.WithMessage("the image store is not available, so the change could not be recorded; try again")
	noteFailure(ctx, failure)
	return failure
}

// noteFailure has the answer be that of a failure, where distribution would say 500.
func noteFailure(ctx context.Context, failure errcode.Error) {
	if notes, ok := ctx.Value(putNotesKey{}).(*putNotes); ok {
		notes.failure.Store(&failure)
	}
}

// noteSubject has the answer say that the registry has processed the subject.
func noteSubject(ctx context.Context, subject digest.Digest) {
	if notes, ok := ctx.Value(putNotesKey{}).(*putNotes); ok && subject != "" {
		notes.subject.Store(&subject)
	}
}

// withPutNotes answers PUTs and DELETEs that met an outage with 503 and Retry-After, those that a rule
// forbids with 403, and PUTs of manifests with a subject with OCI-Subject.
func withPutNotes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut && r.Method != http.MethodDelete {
			next.ServeHTTP(w, r)
			return
		}
		notes, request := &putNotes{}, &tracker.Request{}
		ctx := tracker.WithRequest(context.WithValue(r.Context(), putNotesKey{}, notes), request)
		defer func() { _ = request.End(ctx) }() // it logs what it cannot do, and the client has its answer
		next.ServeHTTP(&putWriter{ResponseWriter: w, notes: notes}, r.WithContext(ctx))
	})
}

// putWriter makes the notes part of the answer.
type putWriter struct {
	http.ResponseWriter
	notes    *putNotes
	replaced bool
}

// Unwrap lets http.ResponseController find the connection.
func (w *putWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *putWriter) WriteHeader(status int) {
	failure := w.notes.failure.Load()
	if failure == nil || status < http.StatusBadRequest {
		if subject := w.notes.subject.Load(); subject != nil && status == http.StatusCreated {
			w.Header().Set("OCI-Subject", subject.String())
		}
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.replaced = true
	if failure.Code == errcode.ErrorCodeUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Del("Content-Length")
	_ = errcode.ServeJSON(w.ResponseWriter, errcode.Errors{*failure}) // the client has left if this fails
}

// Write implements http.ResponseWriter.
func (w *putWriter) Write(p []byte) (int, error) {
	if w.replaced {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}
