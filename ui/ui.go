// Package ui serves the page on which a registry can be looked at: repositories, tags and images, as the
// Kubernetes API and the registry tell them. The page asks those two with the credentials of its viewer; it has
// no data of its own. Its sources are in src, and `make ui` makes dist of them.
package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed dist
var dist embed.FS

// policy lets the page load its own files and ask its own server, and nothing else
// (https://www.w3.org/TR/CSP3/).
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the page at root+"ui/", sends browsers that ask for root there, and hands all other
// requests to next. root is where the registry's paths begin, http.prefix of its configuration, and "/" if it
// is empty.
func Handler(root string, next http.Handler) http.Handler {
	root = "/" + strings.Trim(root, "/")
	if root != "/" {
		root += "/"
	}
	page := root + "ui/"
	files := readFiles()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, isPage := strings.CutPrefix(r.URL.Path, page)
		reads := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case isPage && !reads:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the page can only be read", http.StatusMethodNotAllowed)
		case isPage:
			serveFile(w, r, files, name)
		case reads && r.URL.Path == strings.TrimSuffix(page, "/"):
			http.Redirect(w, r, page, http.StatusMovedPermanently)
		case reads && (r.URL.Path == root || r.URL.Path == "/") && wantsPage(r):
			w.Header().Set("Vary", "Accept")
			http.Redirect(w, r, page, http.StatusFound)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// wantsPage reports whether a client names HTML among the types that it takes, as browsers do.
func wantsPage(r *http.Request) bool {
	for accepted := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if mediaType, _, err := mime.ParseMediaType(accepted); err == nil && mediaType == "text/html" {
			return true
		}
	}
	return false
}

// file is one file of the page. Its etag changes with its content.
type file struct {
	content   []byte
	mediaType string
	etag      string
}

// mediaTypes do not depend on the machine's own table.
var mediaTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml",
}

func readFiles() map[string]file {
	files := map[string]file{}
	entries, err := fs.ReadDir(dist, "dist")
	if err != nil {
		panic(err) // it is part of the binary
	}
	for _, entry := range entries {
		content, err := fs.ReadFile(dist, "dist/"+entry.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(content)
		files[entry.Name()] = file{content: content, mediaType: mediaTypes[path.Ext(entry.Name())], etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
	}
	files[""] = files["index.html"]
	return files
}

func serveFile(w http.ResponseWriter, r *http.Request, files map[string]file, name string) {
	f, ok := files[name]
	if !ok {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("ETag", f.etag)
	h.Set("Cache-Control", "no-cache") // a new version is seen at once; an old one is 304
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.content))
}
