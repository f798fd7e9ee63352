package streamrest

import (
	"context"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/storage"
	"tallyman/storage/objects"
)

// layers is the subresource imagestreams/layers: the content of all manifests that the repository of a
// stream holds, and of no other.
type layers struct {
	streams *resource
	names   streams.Names
	records *records.Store
	backend storage.Backend
}

var _ k8srest.Getter = (*layers)(nil)

// New implements rest.Storage.
func (*layers) New() runtime.Object { return &imagev1.ImageStreamLayers{} }

// Destroy implements rest.Storage.
func (*layers) Destroy() {}

// layersPage is how many Images are read at once.
const layersPage = 100

// Get implements rest.Getter.
func (l *layers) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	stream, repository, err := streamOf(ctx, l.streams, l.names, name, options)
	if err != nil {
		return nil, err
	}
	held, err := l.records.HeldManifests(ctx, repository, "", 0)
	if err != nil {
		return nil, objects.Unavailable(err)
	}
	content := streams.NewLayers(stream)
	for len(held) > 0 {
		page := held[:min(len(held), layersPage)]
		if err := l.add(ctx, content, page); err != nil {
			return nil, objects.Unavailable(err)
		}
		held = held[len(page):]
	}
	for i := range stream.Status.Tags {
		for _, item := range stream.Status.Tags[i].Items {
			content.AddMissing(item.Image)
		}
	}
	return content.Object(), nil
}

// add adds the Images of some manifests. Some manifests have none.
func (l *layers) add(ctx context.Context, content *streams.Layers, names []digest.Digest) error {
	keys := make([]string, len(names))
	for i, name := range names {
		keys[i] = rest.Key(name)
	}
	result, err := l.backend.Get(ctx, storage.GetRequest{Keys: keys, Read: storage.Read{Sections: []string{storage.SectionBody}}})
	if err != nil {
		return err
	}
	for _, entry := range result.Entries {
		if entry == nil {
			continue
		}
		if image, err := rest.Decode(entry); err == nil { // one that cannot be read is for `store check`
			content.Add(image)
		}
	}
	return nil
}

// streamOf returns a stream in the namespace of ctx, and its repository.
func streamOf(ctx context.Context, all *resource, names streams.Names, name string, options *metav1.GetOptions) (*imagev1.ImageStream, string, error) {
	obj, err := all.Get(ctx, name, options)
	if apierrors.IsNotFound(err) {
		return nil, "", apierrors.NewNotFound(imageapi.ImageStreams, name)
	}
	if err != nil {
		return nil, "", err
	}
	stream := obj.(*imagev1.ImageStream)
	repository, err := names.Repository(streams.Stream{Namespace: stream.Namespace, Name: stream.Name})
	if err != nil {
		return nil, "", apierrors.NewNotFound(imageapi.ImageStreams, name)
	}
	return stream, repository, nil
}

// secrets is the subresource imagestreams/secrets: the credentials of a namespace for other registries,
// of which this API keeps none.
type secrets struct{}

var _ k8srest.Getter = secrets{}

// New implements rest.Storage.
func (secrets) New() runtime.Object { return &imagev1.SecretList{} }

// Destroy implements rest.Storage.
func (secrets) Destroy() {}

// Get implements rest.Getter. As on OpenShift, the stream need not be there.
func (secrets) Get(context.Context, string, *metav1.GetOptions) (runtime.Object, error) {
	return &imagev1.SecretList{Items: []corev1.Secret{}}, nil
}
