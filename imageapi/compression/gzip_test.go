package compression

import (
	"bytes"
	stdgzip "compress/gzip"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
)

// parts is an object that is encoded in several writes.
type parts struct {
	runtime.Object
	parts []string
}

func (p parts) Encode(_ runtime.Object, w io.Writer) error {
	for _, part := range p.parts {
		if _, err := io.WriteString(w, part); err != nil {
			return err
		}
	}
	return nil
}

func (parts) Identifier() runtime.Identifier { return "parts" }

// TestAnswer: an answer is compressed, or not, with the headers and the content, as by
// k8s.io/apiserver.
func TestAnswer(t *testing.T) {
	large := strings.Repeat("a large answer, ", threshold/16)
	for name, content := range map[string][]string{
		"small": {"small"}, "the largest that is not compressed": {large}, "one byte more": {large + "x"}, "large, then small": {large + "x", "y", "z"},
		"small, then large": {"a first write", large, large},
	} {
		for _, accept := range []string{"", "gzip", "deflate, gzip;q=0.5", "br", "identity, gzip", "x-gzip"} {
			t.Run(name+" for "+accept, func(t *testing.T) {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				r.Header.Set("Accept-Encoding", accept)
				serialize := func(w http.ResponseWriter, r *http.Request) {
					responsewriters.SerializeObject("text/plain", parts{parts: content}, w, r, http.StatusAccepted, nil)
				}
				ours, theirs := httptest.NewRecorder(), httptest.NewRecorder()
				if err := Answer(ours, r, serialize); err != nil {
					t.Fatal(err)
				}
				serialize(theirs, r)
				if ours.Code != theirs.Code || strings.Join(ours.Header()["Vary"], "") != strings.Join(theirs.Header()["Vary"], "") ||
					ours.Header().Get("Content-Encoding") != theirs.Header().Get("Content-Encoding") || ours.Header().Get("Content-Type") != theirs.Header().Get("Content-Type") {
					t.Errorf("%d %v, want %d %v", ours.Code, ours.Header(), theirs.Code, theirs.Header())
				}
				if got := read(t, ours); !bytes.Equal(got, read(t, theirs)) || string(got) != strings.Join(content, "") {
					t.Errorf("%d bytes are not those of the answer", len(got))
				}
			})
		}
	}
}

// sizes is a connection that knows the sizes of its writes.
type sizes struct {
	*httptest.ResponseRecorder
	writes []int
}

func (s *sizes) Write(p []byte) (int, error) {
	s.writes = append(s.writes, len(p))
	return s.ResponseRecorder.Write(p)
}

// TestWrites: a compressed answer is written in few pieces, however many it comes in.
func TestWrites(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	w, random := &sizes{ResponseRecorder: httptest.NewRecorder()}, rand.NewChaCha8([32]byte{})
	var want bytes.Buffer
	if err := Answer(w, r, func(w http.ResponseWriter, _ *http.Request) {
		for n := threshold + 1; want.Len() < 10*threshold; n = 1000 {
			part := make([]byte, n)
			_, _ = random.Read(part)
			want.Write(part)
			if _, err := w.Write(part); err != nil {
				t.Error(err)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	for _, n := range w.writes[:len(w.writes)-1] {
		if n < bufferSize {
			t.Errorf("the sizes of writes are %d, want all but the last to be %d or more", w.writes, bufferSize)
			break
		}
	}
	if !bytes.Equal(read(t, w.ResponseRecorder), want.Bytes()) {
		t.Error("the answer is another one")
	}
}

// read decompresses an answer with the standard library.
func read(t *testing.T, w *httptest.ResponseRecorder) []byte {
	t.Helper()
	if w.Header().Get("Content-Encoding") != "gzip" {
		return w.Body.Bytes()
	}
	reader, err := stdgzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestPanic: an answer that is broken off does not look complete.
func TestPanic(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }()
		_ = Answer(w, r, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 2*threshold))
			panic(http.ErrAbortHandler)
		})
	}()
	if reader, err := stdgzip.NewReader(w.Body); err == nil {
		if _, err = io.ReadAll(reader); err == nil {
			t.Error("it can be read to its end")
		}
	}
}

// TestUnwrap: deadlines of the connection are found.
func TestUnwrap(t *testing.T) {
	w := httptest.NewRecorder()
	if (&writer{ResponseWriter: w}).Unwrap() != http.ResponseWriter(w) {
		t.Error("another writer")
	}
}
