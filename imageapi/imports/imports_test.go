package imports

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

func named(t *testing.T, name string) reference.Named {
	t.Helper()
	parsed, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestAllowed(t *testing.T) {
	c, err := New(Options{Allowed: []Registry{
		{Host: "docker.io"}, {Host: "*.example.com"}, {Host: "localhost:5000"}, {Host: "dev.null.io", Insecure: true}, {Host: "any.null.io:*"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, allowed := range map[string]bool{
		"busybox": true, "index.docker.io/library/busybox": true, "docker.io:443/busybox": true, "docker.io:5000/busybox": false,
		"a.example.com/b": true, "a.b.example.com/b": true, "example.com/b": false, "example.com.evil.org/b": false,
		"localhost:5000/a": true, "localhost/a": false, "localhost:5001/a": false,
		"dev.null.io/a": true, "dev.null.io:80/a": true, "dev.null.io:81/a": false, "any.null.io:81/a": true, "10.0.0.1/a": false, "[::1]:5000/a": false,
	} {
		_, err := c.Repository(named(t, name), false)
		var refused *NotAllowedError
		if errors.As(err, &refused) == allowed || allowed && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = c.Repository(named(t, "registry.ltd/a"), false)
	if want := `registry "registry.ltd" not allowed by allow list: "docker.io", "*.example.com", "localhost:5000", "dev.null.io", "any.null.io:*"`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// answers is a registry with answers by path.
type answers map[string]string

// ServeHTTP implements http.Handler.
func (a answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	content, ok := a[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if strings.Contains(r.URL.Path, "/manifests/") {
		w.Header().Set("Content-Type", imagespec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", digest.FromString(content).String())
	}
	if strings.Contains(r.URL.Path, "/secret/") {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	_, _ = io.WriteString(w, content) // the client sees a short one
}

// TestInsecure: plain HTTP and unknown certificates are for registries that the operator calls insecure, where
// a client asks for it.
func TestInsecure(t *testing.T) {
	content := answers{"/v2/a/manifests/v1": `{"schemaVersion":2}`}
	plain, secure := httptest.NewServer(content), httptest.NewTLSServer(content)
	defer plain.Close()
	defer secure.Close()
	for _, server := range []*httptest.Server{plain, secure} {
		host := strings.TrimPrefix(strings.TrimPrefix(server.URL, "http://"), "https://")
		for _, operator := range []bool{false, true} {
			c, err := New(Options{Allowed: []Registry{{Host: host, Insecure: operator}}})
			if err != nil {
				t.Fatal(err)
			}
			for _, client := range []bool{false, true} {
				r, err := c.Repository(named(t, host+"/a"), client)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				_, err = r.Manifest(ctx, "v1")
				cancel()
				if (err == nil) != (operator && client) {
					t.Errorf("%s, operator %t, client %t: %v", server.URL, operator, client, err)
				}
				if server == plain && !operator && KindOf(err) != http.StatusBadRequest {
					t.Errorf("%v is of kind %d", err, KindOf(err))
				}
			}
		}
	}
}

// TestManifest: content has the digest by which it was asked for, within a bound.
func TestManifest(t *testing.T) {
	content := `{"schemaVersion":2}`
	wrong := digest.FromString("other")
	server := httptest.NewServer(answers{
		"/v2/a/manifests/v1": content, "/v2/a/manifests/" + wrong.String(): content, "/v2/a/manifests/large": strings.Repeat(" ", maxManifest+1),
		"/v2/secret/a/manifests/v1": content, "/v2/a/manifests/" + digest.FromString(content).String(): content,
	})
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	c, err := New(Options{Allowed: []Registry{{Host: host, Insecure: true}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		repository, of string
		fails          bool
		kind           int
	}{
		{"a", "v1", false, 0}, {"a", digest.FromString(content).String(), false, 0}, {"a", wrong.String(), true, 0}, {"a", "large", true, 0},
		{"a", "none", true, http.StatusNotFound}, {"secret/a", "v1", true, http.StatusUnauthorized},
	} {
		r, err := c.Repository(named(t, host+"/"+test.repository), true)
		if err != nil {
			t.Fatal(err)
		}
		m, err := r.Manifest(t.Context(), test.of)
		if (err != nil) != test.fails || KindOf(err) != test.kind || !test.fails && string(m.Content) != content {
			t.Errorf("%s of %s: %v, %v of kind %d", test.of, test.repository, m, err, KindOf(err))
		}
	}
}
