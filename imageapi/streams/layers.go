package streams

import (
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/rules"
	"tallyman/signatures/manifest"
)

// Layers collects the content of a stream for its layers, as OpenShift shows it
// (https://github.com/openshift/openshift-apiserver/blob/master/pkg/image/apiserver/registry/imagestream/etcd/etcd.go).
type Layers struct{ shown *imagev1.ImageStreamLayers }

// NewLayers returns the Layers of a stream, without any.
func NewLayers(stream *imagev1.ImageStream) *Layers {
	return &Layers{&imagev1.ImageStreamLayers{
		ObjectMeta: stream.ObjectMeta, Blobs: map[string]imagev1.ImageLayerData{}, Images: map[string]imagev1.ImageBlobReferences{},
	}}
}

// Add adds the content of an Image.
func (l *Layers) Add(image *imagev1.Image) {
	l.shown.Blobs[image.Name] = imagev1.ImageLayerData{MediaType: image.DockerImageManifestMediaType}
	references := imagev1.ImageBlobReferences{}
	for i := range image.DockerImageLayers {
		layer := &image.DockerImageLayers[i]
		size := layer.LayerSize
		l.shown.Blobs[layer.Name] = imagev1.ImageLayerData{LayerSize: &size, MediaType: layer.MediaType}
		references.Layers = append(references.Layers, layer.Name)
	}
	for i := range image.DockerImageManifests {
		references.Manifests = append(references.Manifests, image.DockerImageManifests[i].Digest)
	}
	if !manifest.IsIndex(image.DockerImageManifestMediaType) {
		if config := rules.Metadata(image).ID; config != "" && config != image.Name { // schema 1 has none
			references.Config = &config
			if _, known := l.shown.Blobs[config]; !known {
				l.shown.Blobs[config] = imagev1.ImageLayerData{}
			}
		}
	}
	l.shown.Images[image.Name] = references
}

// AddMissing adds an image that the stream has had and that is not there any more.
func (l *Layers) AddMissing(name string) {
	if _, there := l.shown.Images[name]; !there && name != "" {
		l.shown.Images[name] = imagev1.ImageBlobReferences{ImageMissing: true}
	}
}

// Object returns the object with everything that was added.
func (l *Layers) Object() *imagev1.ImageStreamLayers { return l.shown }
