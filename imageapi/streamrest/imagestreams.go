package streamrest

import (
	"errors"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/views"
	"tallyman/storage"
)

// newImageStreams opens the imagestreams resource. host is the registry's own host[:port] for pull
// references, "" for none.
func newImageStreams(backend storage.Backend, names streams.Names, host string) (*resource, error) {
	return newResource(options{
		backend: views.ImageStreams(backend, names, host), prefix: views.ImageStreamPrefix, resource: imageapi.ImageStreams, singular: "imagestream", short: "is", all: true,
		key: streamKey, table: streams.ImageStreamTable,
		newFunc: func() runtime.Object { return &imagev1.ImageStream{} },
		newList: func() runtime.Object { return &imagev1.ImageStreamList{} },
		fields: func(obj runtime.Object) fields.Set {
			stream := obj.(*imagev1.ImageStream)
			return fields.Set{
				imageapi.FieldSpecRepository: stream.Spec.DockerImageRepository, imageapi.FieldStatusRepository: stream.Status.DockerImageRepository,
			}
		},
	})
}

var errStreamName = errors.New("the name of an image stream is required, without a tag")

func streamKey(namespace, name string) (string, error) {
	if !streams.IsName(name) {
		return "", errStreamName
	}
	return namespace + "/" + name, nil
}

// newImageStreamTags opens the imagestreamtags resource.
func newImageStreamTags(backend storage.Backend) (*resource, error) {
	return newResource(options{
		backend: views.ImageStreamTags(backend), prefix: views.ImageStreamTagPrefix, resource: imageapi.ImageStreamTags, singular: "imagestreamtag", short: "istag",
		key: tagKey, table: streams.ImageStreamTagTable, shared: true,
		newFunc: func() runtime.Object { return &imagev1.ImageStreamTag{} },
		newList: func() runtime.Object { return &imagev1.ImageStreamTagList{} },
		fields: func(obj runtime.Object) fields.Set {
			return fields.Set{imageapi.FieldImage: obj.(*imagev1.ImageStreamTag).Image.Name}
		},
	})
}
