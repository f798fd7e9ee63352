package streamrest

import (
	"context"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// Options configures New.
type Options struct {
	// Backend is the store. Required.
	Backend storage.Backend
	// Images are all Images. Required.
	Images *rest.Images
	// Records are those of tags and holdings. Required.
	Records *records.Store
	// Host is the registry's own host[:port] for pull references, "" for none.
	Host string
	// Registry changes the registry. Required.
	Registry Registry
}

// Registry changes the registry.
type Registry interface {
	// Untag deletes a tag of a repository for a user, unless condition fails, which is called when nobody
	// else can change the tag. Its error is returned. A tag that the registry does not have is no error.
	// The error is a RefusedError or a Kubernetes one.
	Untag(ctx context.Context, user, repository, tag string, condition func(context.Context) error) error
}

// RefusedError is the error of a change that the registry does not make.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

// Resources are all namespaced resources. Create it with New.
type Resources struct {
	streams    *resource
	streamTags *deletable
	tags       *imageTags
	images     *imageStreamImages
	layers     *layers
}

// New opens the resources. The caller closes them before the backend.
func New(o Options) (*Resources, error) {
	r, shown, names := &Resources{}, &images{o.Images, o.Backend}, o.Records.Names()
	var err error
	if r.streams, err = newImageStreams(o.Backend, names, o.Host); err != nil {
		return nil, err
	}
	streamTags, err := newImageStreamTags(o.Backend)
	if err != nil {
		r.Close()
		return nil, err
	}
	r.streamTags = &deletable{streamTags, names, o.Registry}
	if r.tags, err = newImageTags(o.Backend, shown, names, o.Registry); err != nil {
		r.Close()
		return nil, err
	}
	r.images = &imageStreamImages{TableConvertor: streams.ImageStreamImageTable, streams: r.streams, names: names, records: o.Records, images: shown}
	r.layers = &layers{streams: r.streams, names: names, records: o.Records, backend: o.Backend}
	return r, nil
}

// Storage returns the resources by the names under which the API has them.
func (r *Resources) Storage() map[string]k8srest.Storage {
	return map[string]k8srest.Storage{
		imageapi.ImageStreams.Resource:             r.streams,
		imageapi.ImageStreams.Resource + "/layers": r.layers,
		imageapi.ImageStreamTags.Resource:          r.streamTags,
		imageapi.ImageTags.Resource:                r.tags,
		imageapi.ImageStreamImages.Resource:        r.images,
	}
}

// Listed returns the resources whose lists are streamed.
func (r *Resources) Listed() []*rest.Listed {
	return []*rest.Listed{
		r.streams.listed("ImageStream", func(m metav1.ListMeta) runtime.Object {
			return &imagev1.ImageStreamList{ListMeta: m, Items: []imagev1.ImageStream{}}
		}),
		r.streamTags.listed("ImageStreamTag", func(m metav1.ListMeta) runtime.Object {
			return &imagev1.ImageStreamTagList{ListMeta: m, Items: []imagev1.ImageStreamTag{}}
		}),
	}
}

// Close ends all watches.
func (r *Resources) Close() {
	if r.streams != nil {
		r.streams.Close()
	}
	if r.streamTags != nil {
		r.streamTags.Close()
	}
	if r.tags != nil {
		r.tags.Close()
	}
}
