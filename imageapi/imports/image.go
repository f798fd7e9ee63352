package imports

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"

	"oras.land/oras-go/v2/content"

	"tallyman/imageapi/derive"
	"tallyman/signatures/manifest"
)

// maxConfig bounds a config, in bytes.
const maxConfig = 4 << 20

// Image is an image of another registry. It is a source of its content.
type Image struct {
	Digest     digest.Digest
	repository *Repository
	top        *Manifest
	parsed     *manifest.Manifest
}

// Image returns the image of a tag or a digest.
func (r *Repository) Image(ctx context.Context, of string) (*Image, error) {
	top, err := r.Manifest(ctx, of)
	if err != nil {
		return nil, err
	}
	parsed, err := manifest.Parse(top.MediaType, top.Content)
	if err != nil {
		return nil, err
	}
	return &Image{Digest: top.Digest, repository: r, top: top, parsed: parsed}, nil
}

// Object returns the Image of the API, with the text of the manifest and the config if whole is set. Its pull
// reference is that of the other registry.
func (i *Image) Object(ctx context.Context, whole bool) (*imagev1.Image, error) {
	var config []byte
	if named := i.parsed.Config; named != nil && manifest.IsImageConfig(named.MediaType) && named.Size <= maxConfig {
		var err error
		if config, err = content.FetchAll(ctx, i.repository.remote.Blobs(), *named); err != nil {
			return nil, fmt.Errorf("config %s: %w", named.Digest, err)
		}
	}
	image, err := derive.Image(derive.Input{
		Manifest: i.parsed, Config: config, Digest: i.Digest, InlineLimit: derive.DefaultInlineLimit, Reference: i.repository.Name + "@" + i.Digest.String(),
	})
	if err == nil && !whole {
		image.DockerImageManifest, image.DockerImageConfig = "", ""
	}
	return image, err
}

// Children returns the images of an index that the registry has, none of another manifest.
func (i *Image) Children(ctx context.Context) (children []*Image, err error) {
	for k := range i.parsed.Manifests {
		child, err := i.repository.Image(ctx, i.parsed.Manifests[k].Digest.String())
		if err != nil {
			return nil, err
		}
		children = append(children, child)
	}
	return children, nil
}

// Manifest implements streamwriter.Content.
func (i *Image) Manifest(ctx context.Context, name digest.Digest) (mediaType string, content []byte, err error) {
	m := i.top
	if name != m.Digest {
		if m, err = i.repository.Manifest(ctx, name.String()); err != nil {
			return "", nil, err
		}
	}
	return m.MediaType, m.Content, nil
}

// Blob implements streamwriter.Content.
func (i *Image) Blob(ctx context.Context, blob imagespec.Descriptor) (io.ReadCloser, error) {
	return i.repository.Blob(ctx, blob)
}
