package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/imageapi/streamwriter"
)

// source is where a manifest comes from that is added to a repository.
type source interface {
	// manifest fails with distribution.ErrManifestUnknownRevision if there is none.
	manifest(ctx context.Context, name digest.Digest) (distribution.Manifest, error)
	// add adds a blob to a repository.
	add(ctx context.Context, to *repository, blob imagespec.Descriptor) error
}

// addManifest adds a manifest to a repository, with its content; the manifests of an index come first. A
// manifest that is there stays as it is.
func addManifest(ctx context.Context, from source, to *repository, name digest.Digest) error {
	target, err := to.Manifests(ctx)
	if err != nil {
		return err
	}
	if there, err := target.Exists(ctx, name); err != nil || there {
		return err
	}
	content, err := from.manifest(ctx, name)
	if err != nil {
		return err
	}
	for _, part := range content.References() {
		if isList(content) {
			var unknown distribution.ErrManifestUnknownRevision
			if err = addManifest(ctx, from, to, part.Digest); errors.As(err, &unknown) {
				err = nil // the registry decides whether the index needs it
			}
		} else if len(part.URLs) == 0 { // the content of others is elsewhere
			err = from.add(ctx, to, part)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", part.Digest, err)
		}
	}
	_, err = target.Put(ctx, content)
	return err
}

// isList reports whether a manifest is one of manifests.
func isList(content distribution.Manifest) bool {
	switch content.(type) {
	case *manifestlist.DeserializedManifestList, *ocischema.DeserializedImageIndex:
		return true
	}
	return false
}

// sibling is a repository of the same registry as source: its blobs are mounted.
type sibling struct{ *repository }

func (s sibling) manifest(ctx context.Context, name digest.Digest) (distribution.Manifest, error) {
	service, err := s.Repository.Manifests(ctx)
	if err != nil {
		return nil, err
	}
	return service.Get(ctx, name)
}

func (s sibling) add(ctx context.Context, to *repository, blob imagespec.Descriptor) error {
	source, err := reference.WithDigest(s.Named(), blob.Digest)
	if err != nil {
		return err
	}
	writer, err := to.Repository.Blobs(ctx).Create(ctx, storage.WithMountFrom(source))
	var mounted distribution.ErrBlobMounted
	switch {
	case errors.As(err, &mounted):
		return nil
	case err != nil:
		return err
	}
	return errors.Join(distribution.ErrBlobUnknown, writer.Cancel(ctx), writer.Close())
}

// elsewhere is another registry as source: its blobs are copied, unless they are there.
type elsewhere struct{ streamwriter.Content }

// contentError is a failure of the source, and not of this registry.
type contentError struct{ error }

// Unwrap returns the cause.
func (e contentError) Unwrap() error { return e.error }

func (e elsewhere) manifest(ctx context.Context, name digest.Digest) (distribution.Manifest, error) {
	mediaType, content, err := e.Manifest(ctx, name)
	if err != nil {
		return nil, contentError{err}
	}
	manifest, _, err := distribution.UnmarshalManifest(mediaType, content)
	if err != nil {
		return nil, contentError{err}
	}
	return manifest, nil
}

// noting is a reader that notes why it fails.
type noting struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (n *noting) Read(p []byte) (int, error) {
	read, err := n.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		n.err = err
	}
	return read, err
}

func (e elsewhere) add(ctx context.Context, to *repository, blob imagespec.Descriptor) error {
	blobs := to.Blobs(ctx)
	if _, err := blobs.Stat(ctx, blob.Digest); err == nil {
		return nil
	}
	content, err := e.Blob(ctx, blob)
	if err != nil {
		return contentError{err}
	}
	defer func() { _ = content.Close() }()
	writer, err := blobs.Create(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = writer.Close() }()
	source := &noting{Reader: content}
	if _, err = io.Copy(writer, source); err == nil {
		_, err = writer.Commit(ctx, imagespec.Descriptor{Digest: blob.Digest, Size: writer.Size(), MediaType: blob.MediaType})
	}
	if err == nil {
		return nil
	}
	var invalid distribution.ErrBlobInvalidDigest
	if source.err != nil || errors.As(err, &invalid) {
		err = contentError{err}
	}
	return errors.Join(err, writer.Cancel(context.WithoutCancel(ctx)))
}
