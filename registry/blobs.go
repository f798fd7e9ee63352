package registry

import (
	"context"

	"github.com/distribution/distribution/v3"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/registry/configs"
)

// pushedBlobs keeps the small blobs that clients push.
type pushedBlobs struct {
	distribution.BlobStore
	configs *configs.Cache
}

// Create implements distribution.BlobIngester.
func (b pushedBlobs) Create(ctx context.Context, options ...distribution.BlobCreateOption) (distribution.BlobWriter, error) {
	return b.follow(b.BlobStore.Create(ctx, options...))
}

// Resume implements distribution.BlobIngester.
func (b pushedBlobs) Resume(ctx context.Context, id string) (distribution.BlobWriter, error) {
	return b.follow(b.BlobStore.Resume(ctx, id))
}

func (b pushedBlobs) follow(w distribution.BlobWriter, err error) (distribution.BlobWriter, error) {
	if err != nil {
		return nil, err
	}
	return b.configs.Follow(w), nil
}

// blobs tells the tracker of blobs that arrive in a pull-through cache.
type blobs struct {
	distribution.BlobStore
	repository *repository
}

// Create implements distribution.BlobIngester.
func (b *blobs) Create(ctx context.Context, options ...distribution.BlobCreateOption) (distribution.BlobWriter, error) {
	inner, err := b.BlobStore.Create(ctx, options...)
	if err != nil {
		return nil, err
	}
	return &blobWriter{BlobWriter: inner, repository: b.repository}, nil
}

// Put implements distribution.BlobIngester.
func (b *blobs) Put(ctx context.Context, mediaType string, p []byte) (imagespec.Descriptor, error) {
	stored, err := b.BlobStore.Put(ctx, mediaType, p)
	if err == nil {
		b.repository.tracker.BlobArrived(stored.Digest)
	}
	return stored, err
}

type blobWriter struct {
	distribution.BlobWriter
	repository *repository
}

// Commit implements distribution.BlobWriter.
func (w *blobWriter) Commit(ctx context.Context, provisional imagespec.Descriptor) (imagespec.Descriptor, error) {
	stored, err := w.BlobWriter.Commit(ctx, provisional)
	if err == nil {
		w.repository.tracker.BlobArrived(stored.Digest)
	}
	return stored, err
}
