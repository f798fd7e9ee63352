// Package compression sends answers in gzip, as k8s.io/apiserver does and with the same level, but with a
// compressor that takes half the time.
package compression

import (
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

var writers = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, level)
	if err != nil {
		panic(err) // only for a level that is none
	}
	return w
}}

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
	status  int // noted until then
	written bool
	gzip    *gzip.Writer // nil for an answer that is not compressed
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
	if w.gzip != nil {
		return w.gzip.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

func (w *writer) begin(compress bool) {
	w.written = true
	if compress {
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Add("Vary", "Accept-Encoding")
		w.gzip = writers.Get().(*gzip.Writer)
		w.gzip.Reset(w.ResponseWriter)
	}
	if w.status != 0 {
		w.ResponseWriter.WriteHeader(w.status)
	}
}

func (w *writer) close() error {
	if !w.written {
		w.begin(false)
	}
	if w.gzip == nil {
		return nil
	}
	err := w.gzip.Close()
	w.gzip.Reset(nil)
	writers.Put(w.gzip)
	return err
}
