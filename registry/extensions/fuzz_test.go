package extensions

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
)

// FuzzSignature: a body of any bytes is a signature that can be stored, or an error of the client.
func FuzzSignature(f *testing.F) {
	name := digest.FromString("image")
	f.Add([]byte(`{"schemaVersion":2,"name":"` + name.String() + `@a","type":"atomic","content":"c2lnbmF0dXJl"}`))
	f.Add([]byte(`{"version":2,"name":"` + name.String() + `@a","content":"c2lnbmF0dXJl"}`))
	f.Add([]byte(`{"schemaVersion":2,"name":"@","content":null}`))
	f.Add([]byte(`{"schemaVersion":1e999}`))
	e := &Extensions{options: Options{SignatureLimit: 1000}}
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest("PUT", "/", strings.NewReader(string(body)))
		s, status, err := e.readSignature(httptest.NewRecorder(), r, name)
		if err != nil {
			if status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge {
				t.Errorf("%q: %d %v", body, status, err)
			}
			return
		}
		image, id, ok := strings.Cut(s.Name, "@")
		if !ok || image != name.String() || id == "" || s.Type == "" || len(s.Content) == 0 || len(s.Content) > 1000 || !utf8.ValidString(s.Name) {
			t.Errorf("%q is taken for %+v", body, s)
		}
	})
}
