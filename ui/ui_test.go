package ui

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestHandler: the page is at ui/ below the registry's prefix, a browser finds it, and other requests are the
// registry's.
func TestHandler(t *testing.T) {
	const browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
	for _, test := range []struct {
		root, method, path, accept string
		code                       int
		want                       string // the content type of a file, or the place of a redirect
	}{
		{"", "GET", "/ui/", browser, 200, "text/html; charset=utf-8"},
		{"/", "HEAD", "/ui/app.js", "*/*", 200, "text/javascript; charset=utf-8"},
		{"/", "GET", "/ui/style.css", "", 200, "text/css; charset=utf-8"},
		{"/", "GET", "/ui/icon.svg", "", 200, "image/svg+xml"},
		{"/", "GET", "/ui/index.html", "", 200, "text/html; charset=utf-8"},
		{"/", "GET", "/ui/other.js", "", 404, "text/plain; charset=utf-8"},
		{"/", "GET", "/ui/dist/app.js", "", 404, "text/plain; charset=utf-8"},
		{"/", "POST", "/ui/", "", 405, "text/plain; charset=utf-8"},
		{"/", "GET", "/ui", browser, 301, "/ui/"},
		{"/", "GET", "/", browser, 302, "/ui/"},
		{"/", "HEAD", "/", browser, 302, "/ui/"},
		{"/", "GET", "/", "*/*", 418, ""},
		{"/", "GET", "/", "", 418, ""},
		{"/", "GET", "/", "application/json, text/htmlx", 418, ""},
		{"/", "POST", "/", browser, 418, ""},
		{"/", "GET", "/v2/", browser, 418, ""},
		{"/", "GET", "/uix", browser, 418, ""},
		{"/hub/", "GET", "/hub/ui/", browser, 200, "text/html; charset=utf-8"},
		{"hub", "GET", "/hub/ui", browser, 301, "/hub/ui/"},
		{"/hub/", "GET", "/hub/", browser, 302, "/hub/ui/"},
		{"/hub/", "GET", "/", browser, 302, "/hub/ui/"},
		{"/hub/", "GET", "/ui/", browser, 418, ""},
	} {
		next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
		r := httptest.NewRequest(test.method, test.path, nil)
		r.Header.Set("Accept", test.accept)
		w := httptest.NewRecorder()
		Handler(test.root, next).ServeHTTP(w, r)
		got := w.Header().Get("Location")
		if got == "" {
			got = w.Header().Get("Content-Type")
		}
		if w.Code != test.code || got != test.want {
			t.Errorf("%s %s (root %q, Accept %q): %d %q, want %d %q", test.method, test.path, test.root, test.accept, w.Code, got, test.code, test.want)
		}
	}
}

// TestPage: the page may load only its own files and ask only its own server, it has no inline script, and is
// asked for again only if it has changed.
func TestPage(t *testing.T) {
	handler := Handler("", http.NotFoundHandler())
	get := func(header http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/ui/", nil)
		r.Header = header
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	first := get(http.Header{})
	for name, want := range map[string]string{
		"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Opener-Policy": "same-origin", "Cache-Control": "no-cache",
	} {
		if got := first.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, unsafe := range []string{"unsafe-inline", "unsafe-eval", "*", "http:", "https:", "data:"} {
		if strings.Contains(policy, unsafe) {
			t.Errorf("the policy has %s", unsafe)
		}
	}
	for _, inline := range []string{"<script>", "style=", "onload", "://"} {
		if strings.Contains(first.Body.String(), inline) {
			t.Errorf("the page has %s", inline)
		}
	}
	if again := get(http.Header{"If-None-Match": {first.Header().Get("ETag")}}); again.Code != http.StatusNotModified {
		t.Errorf("asked for again: %d, want 304", again.Code)
	}
}

// TestSize: the whole page is small.
func TestSize(t *testing.T) {
	const most = 150 << 10
	sum := 0
	for name, f := range readFiles() {
		if name != "" {
			sum += len(f.content)
		}
	}
	if sum == 0 || sum > most {
		t.Errorf("the page has %d bytes, want at most %d", sum, most)
	}
}
