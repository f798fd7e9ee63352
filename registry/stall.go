package registry

import (
	"io"
	"net/http"
	"time"
)

// stallTimeout is how long a request whose body is still to come may send nothing. Slow
// networks, and clients that compress a layer while they send it, pause for less.
const stallTimeout = 5 * time.Minute

// withStallTimeout ends requests that stop sending. The uploaded part of a blob stays, and can
// be resumed, as after any lost connection.
func withStallTimeout(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &movingBody{ReadCloser: r.Body, connection: http.NewResponseController(w), timeout: timeout}
		}
		next.ServeHTTP(w, r)
	})
}

// movingBody sets a deadline for each read of a body, and clears it afterwards: between reads
// the server may be the slow side.
type movingBody struct {
	io.ReadCloser
	connection *http.ResponseController
	timeout    time.Duration
}

// Read implements io.Reader.
func (b *movingBody) Read(p []byte) (int, error) {
	// Where deadlines are not supported there is no connection to stall.
	_ = b.connection.SetReadDeadline(time.Now().Add(b.timeout))
	n, err := b.ReadCloser.Read(p)
	_ = b.connection.SetReadDeadline(time.Time{})
	return n, err
}
