// Package compression sends answers in gzip, as k8s.io/apiserver does and with the same level, but with a
// compressor that takes half the time.
package compression

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// threshold is the size in bytes of the first write from which on an answer is compressed, as in
// k8s.io/apiserver: that of a small answer is the whole.
// https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go
const threshold = 128 << 10

// level is that of k8s.io/apiserver.
const level = gzip.BestSpeed

// bufferSize is the size in bytes of the writes to the connection.
const bufferSize = 32 << 10

// compressor gathers the output of a gzip.Writer, which comes in pieces of 240 bytes: each write to the
// connection has a deadline of its own, which takes two messages to the goroutine of HTTP/2.
type compressor struct {
	gzip   *gzip.Writer
	buffer *bufio.Writer
}

var compressors = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, level)
	if err != nil {
		panic(err) // only for a level that is none
	}
	return &compressor{w, bufio.NewWriterSize(nil, bufferSize)}
}}

func (c *compressor) reset(w io.Writer) {
	c.buffer.Reset(w)
	c.gzip.Reset(c.buffer)
}

func (c *compressor) close() error { return errors.Join(c.gzip.Close(), c.buffer.Flush()) }

// Answer calls fn with a response writer that compresses the answer if r accepts that, and with r as
// the one of a client that does not.
func Answer(w http.ResponseWriter, r *http.Request, fn func(http.ResponseWriter, *http.Request)) error {
	if !accepts(r.Header.Get("Accept-Encoding")) {
		fn(w, r)
		return nil
	}
	plain := r.Clone(r.Context())
	plain.Header.Del("Accept-Encoding")
	compressed := &writer{ResponseWriter: w}
	fn(compressed, plain) // after a panic the answer is cut short, and is not to look complete
	return compressed.close()
}

// accepts reports whether a list of encodings has gzip, without a weight, as k8s.io/apiserver wants it.
func accepts(encodings string) bool {
	for encoding := range strings.SplitSeq(encodings, ",") {
		if strings.TrimSpace(encoding) == "gzip" {
			return true
		}
	}
	return false
}

// writer decides with the first write.
type writer struct {
	http.ResponseWriter
	status     int // noted until then
	written    bool
	compressor *compressor // nil for an answer that is not compressed
}

// Unwrap lets http.ResponseController find the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if !w.written {
		w.begin(len(p) > threshold)
	}
	if w.compressor != nil {
		return w.compressor.gzip.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

func (w *writer) begin(compress bool) {
	w.written = true
	if compress {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Add("Vary", "Accept-Encoding")
		w.compressor = compressors.Get().(*compressor)
		w.compressor.reset(w.ResponseWriter)
	}
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
}

func (w *writer) close() error {
	if !w.written {
		w.begin(false)
	}
	if w.compressor == nil {
		return nil
	}
	err := w.compressor.close()
	w.compressor.reset(nil)
	compressors.Put(w.compressor)
	return err
}
