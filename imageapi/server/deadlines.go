package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/felixge/httpsnoop"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// writePart is how much of an answer a client has to take within Limits.WriteTimeout.
const writePart = 256 << 10

// withDeadlines ends requests whose body does not arrive and whose answer is not taken.
// A whole request has no time limit of its own: a list of all Images may take as long
// as a slow network needs, as long as it moves.
func withDeadlines(next http.Handler, l *Limits) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connection := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody && l.BodyTimeout > 0 {
			// Where deadlines are not supported there is no connection to be slow.
			_ = connection.SetReadDeadline(time.Now().Add(l.BodyTimeout))
			r.Body = &punctualBody{ReadCloser: r.Body, timeout: l.BodyTimeout}
		}
		if l.WriteTimeout > 0 {
			w = withWriteDeadlines(w, connection, l.WriteTimeout)
		}
		next.ServeHTTP(w, r)
	})
}

// punctualBody is a body with a deadline, which net/http lifts at its end.
type punctualBody struct {
	io.ReadCloser
	timeout time.Duration
}

// Read implements io.Reader.
func (b *punctualBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusRequestTimeout, Reason: metav1.StatusReasonTimeout,
			Message: fmt.Sprintf("the body of the request did not arrive within %s", b.timeout),
		}}
	}
	return n, err
}

// withWriteDeadlines gives each part of the answer a deadline. HTTP/2 honours one also
// while nothing is written, so it is taken back in between.
func withWriteDeadlines(w http.ResponseWriter, connection *http.ResponseController, timeout time.Duration) http.ResponseWriter {
	begin := func() { _ = connection.SetWriteDeadline(time.Now().Add(timeout)) }
	end := func() { _ = connection.SetWriteDeadline(time.Time{}) }
	return httpsnoop.Wrap(w, httpsnoop.Hooks{
		Write: func(write httpsnoop.WriteFunc) httpsnoop.WriteFunc {
			return func(p []byte) (n int, err error) {
				defer end()
				for more := true; more && err == nil; more = n < len(p) {
					begin()
					var written int
					written, err = write(p[n:min(len(p), n+writePart)])
					n += written
				}
				return n, err
			}
		},
		Flush: func(flush httpsnoop.FlushFunc) httpsnoop.FlushFunc {
			return func() {
				begin()
				defer end()
				flush()
			}
		},
	})
}
