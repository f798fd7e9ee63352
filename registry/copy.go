package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// copyManifest adds a manifest of one repository to another, with its content: blobs are mounted, and the
// manifests of an index come first. A manifest that is there stays as it is.
func copyManifest(ctx context.Context, from, to *repository, name digest.Digest) error {
	source, err := from.Repository.Manifests(ctx)
	if err != nil {
		return err
	}
	target, err := to.Manifests(ctx)
	if err != nil {
		return err
	}
	if there, err := target.Exists(ctx, name); err != nil || there {
		return err
	}
	content, err := source.Get(ctx, name)
	if err != nil {
		return err
	}
	for _, part := range content.References() {
		if isList(content) {
			var unknown distribution.ErrManifestUnknownRevision
			if err = copyManifest(ctx, from, to, part.Digest); errors.As(err, &unknown) {
				err = nil // the registry decides whether the index needs it
			}
		} else if len(part.URLs) == 0 { // the content of others is elsewhere
			err = mount(ctx, from, to, part)
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

// mount adds a blob of one repository to another.
func mount(ctx context.Context, from, to *repository, blob imagespec.Descriptor) error {
	source, err := reference.WithDigest(from.Named(), blob.Digest)
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
