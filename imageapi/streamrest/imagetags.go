package streamrest

import (
	"context"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// imageTags is the imagetags resource: the records of tags. A list of those that were deleted comes from
// another resource.
type imageTags struct {
	*deletable
	images  *images
	deleted *resource
}

func newImageTags(backend storage.Backend, images *images, names streams.Names, registry Registry) (*imageTags, error) {
	live, err := newTagResource(backend, records.TagPrefix, false)
	if err != nil {
		return nil, err
	}
	deleted, err := newTagResource(backend, records.DeletedPrefix, true)
	if err != nil {
		live.Close()
		return nil, err
	}
	return &imageTags{&deletable{live, names, registry}, images, deleted}, nil
}

// newTagResource opens the ImageTags under prefix.
func newTagResource(backend storage.Backend, prefix string, deleted bool) (*resource, error) {
	return newResource(options{
		backend: backend, prefix: prefix, resource: imageapi.ImageTags, singular: "imagetag", short: "itag", key: tagKey, table: streams.ImageTagTable,
		newFunc: func() runtime.Object { return &imagev1.ImageTag{} },
		newList: func() runtime.Object { return &imagev1.ImageTagList{} },
		fields: func(obj runtime.Object) fields.Set {
			return fields.Set{imageapi.FieldImage: records.PointsTo(obj.(*imagev1.ImageTag)), imageapi.FieldDeleted: fmt.Sprint(deleted)}
		},
	})
}

// Close ends all watches.
func (t *imageTags) Close() {
	t.resource.Close()
	t.deleted.Close()
}

// Get implements rest.Getter: the tag, with the Image that it points to if there is one.
func (t *imageTags) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := t.resource.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	tag := obj.(*imagev1.ImageTag)
	if len(tag.Status.Items) == 0 {
		return tag, nil
	}
	head := &tag.Status.Items[0]
	tag.Image, err = t.images.in(ctx, tag.Annotations[records.AnnotationRepository], head.Image, head.DockerImageReference)
	return tag, err
}

// List implements rest.Lister. With the field selector deleted=true it lists the tags that were
// deleted.
func (t *imageTags) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	if wantsDeleted(options) {
		return t.deleted.List(ctx, options)
	}
	return t.resource.List(ctx, options)
}

// Watch implements rest.Watcher.
func (t *imageTags) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	if wantsDeleted(options) {
		return nil, apierrors.NewBadRequest("deleted tags can be listed, not watched")
	}
	return t.resource.Watch(ctx, options)
}

func wantsDeleted(options *internalversion.ListOptions) bool {
	if options == nil || options.FieldSelector == nil {
		return false
	}
	value, ok := options.FieldSelector.RequiresExactMatch(imageapi.FieldDeleted)
	return ok && value == "true"
}
