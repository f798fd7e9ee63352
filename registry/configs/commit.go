package configs

import (
	"context"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Close implements io.Closer. A later request may go on with the upload.
func (w *writer) Close() error {
	if w.complete {
		w.cache.mu.Lock()
		w.cache.uploads.add(w.ID(), w.content)
		w.cache.mu.Unlock()
		w.complete = false // a writer may be closed twice, and the upload be another's by then
	}
	return w.BlobWriter.Close()
}

// Commit implements distribution.BlobWriter. The content counts only if it has the digest that the
// registry stored it under.
func (w *writer) Commit(ctx context.Context, provisional imagespec.Descriptor) (imagespec.Descriptor, error) {
	stored, err := w.BlobWriter.Commit(ctx, provisional)
	if err == nil && w.complete && int64(len(w.content)) == stored.Size && digest.FromBytes(w.content) == stored.Digest {
		w.cache.mu.Lock()
		w.cache.blobs.add(stored.Digest, w.content)
		w.cache.mu.Unlock()
	}
	w.complete = false
	return stored, err
}

// Cancel implements distribution.BlobWriter.
func (w *writer) Cancel(ctx context.Context) error {
	w.complete = false
	return w.BlobWriter.Cancel(ctx)
}
