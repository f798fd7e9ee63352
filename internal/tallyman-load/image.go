package main

import (
	"crypto/rand"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// image is one that nobody has pushed before.
type image struct{ config, layer, manifest []byte }

func newImage(layerBytes int) *image {
	i := &image{layer: make([]byte, layerBytes)}
	_, _ = rand.Read(i.layer) // never fails
	created := time.Now().UTC()
	layer := digest.FromBytes(i.layer)
	i.config = encode(imagespec.Image{
		Created: &created, Author: rand.Text(), Platform: imagespec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: imagespec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer}},
	})
	i.manifest = encode(imagespec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imagespec.MediaTypeImageManifest,
		Config: imagespec.Descriptor{MediaType: imagespec.MediaTypeImageConfig, Digest: digest.FromBytes(i.config), Size: int64(len(i.config))},
		Layers: []imagespec.Descriptor{{MediaType: imagespec.MediaTypeImageLayer, Digest: layer, Size: int64(layerBytes)}},
	})
	return i
}

func (i *image) digest() string { return digest.FromBytes(i.manifest).String() }

func encode(v any) []byte {
	content, err := json.Marshal(v)
	if err != nil {
		panic(err) // these types can be encoded
	}
	return content
}
