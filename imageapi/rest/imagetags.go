package rest

import (
	"context"
	"errors"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage"
	"tallyman/storage/objects"
)

// ImageTags is the REST storage of the imagetags resource: the records of tags, to be read. The
// registry alone writes them.
type ImageTags struct {
	rest.TableConvertor
	images         *Images
	live, deleted  *registry.Store
	encoded, grave *objects.Store
}

var (
	_ rest.Getter               = (*ImageTags)(nil)
	_ rest.Lister               = (*ImageTags)(nil)
	_ rest.Watcher              = (*ImageTags)(nil)
	_ rest.Scoper               = (*ImageTags)(nil)
	_ rest.SingularNameProvider = (*ImageTags)(nil)
)

// NewImageTags opens the imagetags resource on backend. images are the Images that tags point to.
// The caller closes the ImageTags before the backend.
func NewImageTags(backend storage.Backend, images *Images) (*ImageTags, error) {
	t := &ImageTags{TableConvertor: tagTable{}, images: images}
	var err error
	if t.live, t.encoded, err = newTagStore(backend, records.TagPrefix, false); err != nil {
		return nil, err
	}
	if t.deleted, t.grave, err = newTagStore(backend, records.DeletedPrefix, true); err != nil {
		t.encoded.Close()
	}
	return t, err
}

// newTagStore opens the ImageTags under prefix.
func newTagStore(backend storage.Backend, prefix string, deleted bool) (*registry.Store, *objects.Store, error) {
	codec := imageapi.Codecs.LegacyCodec(imagev1.GroupVersion)
	encoded, err := objects.New(objects.Options{
		Backend: backend, Codec: codec, Encoder: jsonEncoder(), ResourcePrefix: prefix, GroupResource: imageapi.ImageTags,
		NewFunc: func() runtime.Object { return &imagev1.ImageTag{} }, SkipCorrupt: true,
	})
	if err != nil {
		return nil, nil, err
	}
	attributes := func(obj runtime.Object) (labels.Set, fields.Set, error) { return tagAttributes(obj, deleted) }
	strategy := tagStrategy{imageapi.Scheme, names.SimpleNameGenerator}
	store := &registry.Store{
		NewFunc:     func() runtime.Object { return &imagev1.ImageTag{} },
		NewListFunc: func() runtime.Object { return &imagev1.ImageTagList{} },
		PredicateFunc: func(label labels.Selector, field fields.Selector) k8sstorage.SelectionPredicate {
			return k8sstorage.SelectionPredicate{Label: label, Field: field, GetAttrs: attributes}
		},
		KeyRootFunc: func(ctx context.Context) string {
			if namespace, ok := request.NamespaceFrom(ctx); ok && namespace != "" {
				return prefix + namespace + "/"
			}
			return prefix
		},
		KeyFunc:                   func(ctx context.Context, name string) (string, error) { return tagKey(ctx, prefix, name) },
		DefaultQualifiedResource:  imageapi.ImageTags,
		SingularQualifiedResource: schema.GroupResource{Group: imageapi.ImageTags.Group, Resource: "imagetag"},
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		TableConvertor:            tagTable{},
	}
	options := &generic.StoreOptions{AttrFunc: attributes, RESTOptions: generic.RESTOptions{
		StorageConfig:  &storagebackend.ConfigForResource{Config: storagebackend.Config{Codec: codec}, GroupResource: imageapi.ImageTags},
		Decorator:      decorator(encoded),
		ResourcePrefix: prefix,
	}}
	if err := store.CompleteWithOptions(options); err != nil {
		encoded.Close()
		return nil, nil, fmt.Errorf("imagetags: %w", err)
	}
	return store, encoded, nil
}

// tagKey returns the key of the ImageTag called name in the namespace of ctx.
func tagKey(ctx context.Context, prefix, name string) (string, error) {
	namespace, ok := request.NamespaceFrom(ctx)
	if !ok || namespace == "" {
		return "", apierrors.NewBadRequest("a namespace is required")
	}
	stream, tag, err := streams.ParseTagName(name)
	if err != nil {
		return "", apierrors.NewBadRequest(err.Error())
	}
	return prefix + streams.Key(namespace, stream, tag), nil
}

func tagAttributes(obj runtime.Object, deleted bool) (labels.Set, fields.Set, error) {
	tag, ok := obj.(*imagev1.ImageTag)
	if !ok {
		return nil, nil, fmt.Errorf("%T is not an ImageTag", obj)
	}
	return tag.Labels, fields.Set{
		"metadata.name": tag.Name, "metadata.namespace": tag.Namespace,
		imageapi.FieldImage: records.PointsTo(tag), imageapi.FieldDeleted: fmt.Sprint(deleted),
	}, nil
}

// Close ends all watches.
func (t *ImageTags) Close() {
	t.encoded.Close()
	t.grave.Close()
}

// New implements rest.Storage.
func (t *ImageTags) New() runtime.Object { return &imagev1.ImageTag{} }

// NewList implements rest.Lister.
func (t *ImageTags) NewList() runtime.Object { return &imagev1.ImageTagList{} }

// Destroy implements rest.Storage.
func (t *ImageTags) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (t *ImageTags) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (t *ImageTags) GetSingularName() string { return "imagetag" }

// Get implements rest.Getter: the tag, with the Image that it points to if there is one.
func (t *ImageTags) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	obj, err := t.live.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	tag := obj.(*imagev1.ImageTag)
	image, err := t.images.Image(ctx, records.PointsTo(tag))
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	tag.Image = image
	return tag, nil
}

// List implements rest.Lister. With the field selector deleted=true it lists the tags that were
// deleted.
func (t *ImageTags) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	if wantsDeleted(options) {
		return t.deleted.List(ctx, options)
	}
	return t.live.List(ctx, options)
}

// Watch implements rest.Watcher.
func (t *ImageTags) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	if wantsDeleted(options) {
		return nil, apierrors.NewBadRequest("deleted tags can be listed, not watched")
	}
	return t.live.Watch(ctx, options)
}

func wantsDeleted(options *internalversion.ListOptions) bool {
	if options == nil || options.FieldSelector == nil {
		return false
	}
	value, ok := options.FieldSelector.RequiresExactMatch(imageapi.FieldDeleted)
	return ok && value == "true"
}

// tagStrategy is that of a resource that no client writes. The generic store wants one.
type tagStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

var errReadOnly = errors.New("image tags are written by the registry")

func (tagStrategy) NamespaceScoped() bool                                            { return true }
func (tagStrategy) PrepareForCreate(context.Context, runtime.Object)                 {}
func (tagStrategy) PrepareForUpdate(context.Context, runtime.Object, runtime.Object) {}
func (tagStrategy) Canonicalize(runtime.Object)                                      {}
func (tagStrategy) AllowCreateOnUpdate(context.Context) bool                         { return false }
func (tagStrategy) AllowUnconditionalUpdate(context.Context) bool                    { return false }
func (tagStrategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (tagStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

func (tagStrategy) Validate(context.Context, runtime.Object) field.ErrorList { return readOnly() }

func (tagStrategy) ValidateUpdate(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return readOnly()
}

func readOnly() field.ErrorList { return field.ErrorList{field.InternalError(nil, errReadOnly)} }
