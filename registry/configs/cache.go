// Package configs keeps small blobs that clients pushed lately, such as the configs of images: the
// manifest that names one comes next, and its Image needs no read of the registry's storage.
package configs

import (
	"io"
	"math"
	"slices"
	"sync"

	"github.com/distribution/distribution/v3"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"
)

const (
	// maxBlob is the size in bytes of the largest blob that is kept.
	maxBlob = 32 << 10
	// maxBytes bounds the blobs that are kept, and the parts of uploads, each.
	maxBytes = 4 << 20
)

// Cache has small blobs by digest; the least recently used go first. It is safe for concurrent use.
type Cache struct {
	mu      sync.Mutex
	blobs   *bounded[digest.Digest]
	uploads *bounded[string] // the parts of uploads that no request is writing to, by ID
}

// New returns an empty Cache.
func New() *Cache { return &Cache{blobs: newBounded[digest.Digest](), uploads: newBounded[string]()} }

// Get returns the content of a blob, nil if it is not kept.
func (c *Cache) Get(name digest.Digest) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	content, _ := c.blobs.lru.Get(name)
	return content
}

// Follow returns w, which keeps the blob that is written to it if it is small and complete.
func (c *Cache) Follow(w distribution.BlobWriter) distribution.BlobWriter {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, _ := c.uploads.lru.Peek(w.ID())
	c.uploads.lru.Remove(w.ID())
	return &writer{BlobWriter: w, cache: c, content: slices.Clip(before), complete: int64(len(before)) == w.Size()}
}

// bounded are byte slices of up to maxBytes together.
type bounded[K comparable] struct {
	size int
	lru  *simplelru.LRU[K, []byte]
}

func newBounded[K comparable]() *bounded[K] {
	b := &bounded[K]{}
	b.lru, _ = simplelru.NewLRU(math.MaxInt32, func(_ K, content []byte) { b.size -= len(content) }) // fails for a size of 0 only
	return b
}

func (b *bounded[K]) add(key K, content []byte) {
	if len(content) == 0 {
		return
	}
	b.lru.Remove(key)
	b.lru.Add(key, content)
	for b.size += len(content); b.size > maxBytes; {
		b.lru.RemoveOldest()
	}
}

// writer is a BlobWriter that notes the content.
type writer struct {
	distribution.BlobWriter
	cache    *Cache
	content  []byte
	complete bool // content is all that was written
}

// note is an io.Writer that adds to the content.
type note struct{ w *writer }

// Write implements io.Writer.
func (n note) Write(p []byte) (int, error) {
	if n.w.complete = n.w.complete && len(n.w.content)+len(p) <= maxBlob; n.w.complete {
		n.w.content = append(n.w.content, p...)
	} else {
		n.w.content = nil
	}
	return len(p), nil
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.BlobWriter.Write(p)
	_, _ = note{w}.Write(p[:n])
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	if !w.complete {
		return w.BlobWriter.ReadFrom(r)
	}
	return w.BlobWriter.ReadFrom(io.TeeReader(r, note{w}))
}
