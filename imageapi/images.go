package imageapi

import (
	"context"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"

	"tallyman/storage"
)

// KeyPrefix starts the keys of Images in the store.
const KeyPrefix = "/images/"

// images is the REST storage of the images resource: upstream's generic store,
// with GET answered from stored bytes where the answer is JSON. lists answers LIST.
type images struct {
	*registry.Store
	encoded    *storage.Store
	backend    storage.Backend
	signatures SignatureOptions
}

var (
	_ rest.StandardStorage      = (*images)(nil)
	_ rest.SingularNameProvider = (*images)(nil)
	_ rest.TableConvertor       = (*images)(nil)
)

// newImages opens the images resource on backend.
func newImages(backend storage.Backend, o SignatureOptions) (*images, error) {
	o.complete()
	codec := Codecs.LegacyCodec(imagev1.GroupVersion)
	encoded, err := storage.New(storage.Options{
		Backend:        backend,
		Codec:          codec,
		Encoder:        jsonEncoder(),
		ResourcePrefix: KeyPrefix,
		GroupResource:  imagesResource,
		NewFunc:        func() runtime.Object { return &imagev1.Image{} },
		Index:          &imageIndex,
		SkipCorrupt:    true,
	})
	if err != nil {
		return nil, err
	}
	strategy := imageStrategy{Scheme, names.SimpleNameGenerator, o.Verifier}
	i := &images{encoded: encoded, backend: backend, signatures: o, Store: &registry.Store{
		NewFunc:                   func() runtime.Object { return &imagev1.Image{} },
		NewListFunc:               func() runtime.Object { return &imagev1.ImageList{} },
		PredicateFunc:             matchImage,
		DefaultQualifiedResource:  imagesResource,
		SingularQualifiedResource: schema.GroupResource{Group: imagesResource.Group, Resource: "image"},
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		TableConvertor:            imageTable{},
	}}
	options := &generic.StoreOptions{AttrFunc: imageAttributes, RESTOptions: generic.RESTOptions{
		StorageConfig: &storagebackend.ConfigForResource{
			Config:        storagebackend.Config{Codec: codec},
			GroupResource: imagesResource,
		},
		Decorator:               i.decorate,
		ResourcePrefix:          "images",
		DeleteCollectionWorkers: 4,
	}}
	if err := i.CompleteWithOptions(options); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	return i, nil
}

// decorate hands our store to the generic one, in place of etcd and the watch
// cache.
func (i *images) decorate(*storagebackend.ConfigForResource, string, func(runtime.Object) (string, error), func() runtime.Object,
	func() runtime.Object, k8sstorage.AttrFunc, k8sstorage.IndexerFuncs, *cache.Indexers,
) (k8sstorage.Interface, factory.DestroyFunc, error) {
	return i.encoded, func() {}, nil
}

// jsonEncoder is the encoder of answers in plain JSON, which the stored bytes
// stand in for.
func jsonEncoder() runtime.Encoder {
	info, _ := runtime.SerializerInfoForMediaType(Codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	return Codecs.EncoderForVersion(info.Serializer, imagev1.GroupVersion)
}

// Get implements rest.Getter.
func (i *images) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	if !wantsPlainObjects(ctx) {
		return i.Store.Get(ctx, name, options)
	}
	key, err := i.KeyFunc(ctx, name)
	if err != nil {
		return nil, err
	}
	image, err := i.encoded.GetEncoded(ctx, key, k8sstorage.GetOptions{ResourceVersion: options.ResourceVersion})
	if err != nil {
		return nil, storeerr.InterpretGetError(err, imagesResource, name)
	}
	return image, nil
}

// predicateOf returns the predicate of a list.
func predicateOf(options *internalversion.ListOptions) k8sstorage.SelectionPredicate {
	label, field := labels.Everything(), fields.Everything()
	if options.LabelSelector != nil {
		label = options.LabelSelector
	}
	if options.FieldSelector != nil {
		field = options.FieldSelector
	}
	predicate := matchImage(label, field)
	predicate.Limit, predicate.Continue = options.Limit, options.Continue
	return predicate
}

// change applies fn to the Image called name and writes it, in one atomic step. It
// returns the Image as it is then. With create, an Image that does not exist is
// presented empty.
func (i *images) change(ctx context.Context, name string, create bool, dryRun []string, fn func(*imagev1.Image) error) (*imagev1.Image, error) {
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		image := old.DeepCopyObject().(*imagev1.Image)
		return image, fn(image)
	})
	updated, _, err := i.Update(ctx, name, info, nil, nil, create, &metav1.UpdateOptions{DryRun: dryRun})
	if err != nil {
		return nil, err
	}
	return updated.(*imagev1.Image), nil
}

// discardCorrupt deletes the Image called name if it cannot be read. It returns false if
// the Image can be read or does not exist.
func (i *images) discardCorrupt(ctx context.Context, name string) (bool, error) {
	key, err := i.KeyFunc(ctx, name)
	if err != nil {
		return false, err
	}
	err = i.encoded.Delete(ctx, key, &imagev1.Image{}, nil, k8sstorage.ValidateAllObjectFunc, nil, k8sstorage.DeleteOptions{ExpectTransformOrDecodeError: true})
	if k8sstorage.IsNotFound(err) || k8sstorage.IsInvalidObj(err) {
		return false, nil
	}
	return err == nil, err
}

// getDecoded reads an Image for a caller inside the process.
func (i *images) getDecoded(ctx context.Context, name string) (*imagev1.Image, error) {
	obj, err := i.Store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return obj.(*imagev1.Image), nil
}
