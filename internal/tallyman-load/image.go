package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/derive"
	"tallyman/signatures/manifest"
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

// again returns an image of the same blobs, with another manifest.
func (i *image) again() *image {
	var m imagespec.Manifest
	if err := json.Unmarshal(i.manifest, &m); err != nil {
		panic(err) // it was encoded here
	}
	m.Annotations = map[string]string{imagespec.AnnotationRevision: rand.Text()}
	return &image{config: i.config, layer: i.layer, manifest: encode(m)}
}

// richLayers is how many layers a rich image has.
const richLayers = 12

// newRichImage returns an image with as much about it as one of a language's runtime has. Its
// layers are nowhere.
func newRichImage() *image {
	created := time.Now().UTC()
	config := imagespec.Image{
		Created: &created, Author: rand.Text(), Platform: imagespec.Platform{OS: "linux", Architecture: "amd64"},
		Config: imagespec.ImageConfig{
			User: "1001", WorkingDir: "/srv/app", Cmd: []string{"/srv/app/bin/server", "--listen", ":8080"}, ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			Env:    []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "APP_ENV=production"},
			Labels: map[string]string{imagespec.AnnotationSource: "https://example.com/team/app", imagespec.AnnotationVersion: "1.2.3"},
		},
	}
	m := imagespec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imagespec.MediaTypeImageManifest}
	config.RootFS.Type = "layers"
	for n := range richLayers {
		layer := digest.FromString(rand.Text())
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, layer)
		config.History = append(config.History, imagespec.History{
			Created: &created, CreatedBy: fmt.Sprintf("RUN /bin/sh -c apt-get update && apt-get install -y package-%d && rm -rf /var/lib/apt/lists/* # buildkit", n), Comment: "buildkit.dockerfile.v0",
		})
		m.Layers = append(m.Layers, imagespec.Descriptor{MediaType: imagespec.MediaTypeImageLayerGzip, Digest: layer, Size: int64(n+1) << 20})
	}
	i := &image{config: encode(config)}
	m.Config = imagespec.Descriptor{MediaType: imagespec.MediaTypeImageConfig, Digest: digest.FromBytes(i.config), Size: int64(len(i.config))}
	i.manifest = encode(m)
	return i
}

// object returns the Image that a push of the image makes, with a name, in JSON.
func (i *image) object(name string) []byte {
	m, err := manifest.Parse(imagespec.MediaTypeImageManifest, i.manifest)
	if err != nil {
		panic(err) // it was encoded here
	}
	object, err := derive.Image(derive.Input{Manifest: m, Config: i.config, Reference: "registry.example.com/team/app@" + i.digest()})
	if err != nil {
		panic(err)
	}
	object.TypeMeta = metav1.TypeMeta{APIVersion: imagev1.GroupVersion.String(), Kind: "Image"}
	object.Name = name
	return encode(object)
}

func (i *image) digest() string { return digest.FromBytes(i.manifest).String() }

func encode(v any) []byte {
	content, err := json.Marshal(v)
	if err != nil {
		panic(err) // these types can be encoded
	}
	return content
}
