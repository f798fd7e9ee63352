// Package rest has the resources of the API on the store: Images, ImageSignatures, and reviews of
// a user's own permissions.
//
// # Guarantees
//
// No Image is written with signatures that have not been verified. GET, LIST and WATCH in JSON
// are answered with the bytes that were stored.
package rest

import (
	"context"
	"errors"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
	"k8s.io/client-go/tools/cache"

	"tallyman/imageapi"
	"tallyman/imageapi/rules"
	"tallyman/storage"
	"tallyman/storage/objects"
)

// KeyPrefix starts the keys of Images in the store.
const KeyPrefix = "/images/"

// Images is the REST storage of the images resource: upstream's generic store, with GET
// answered from stored bytes where the answer is JSON. WithLists answers LIST. Its own methods
// are those of clients; Change writes for the registry.
type Images struct {
	*registry.Store
	registry *registry.Store // with the strategy for the registry
	backend  storage.Backend
	encoded  *objects.Store
	verifier Verifier
}

var (
	_ rest.StandardStorage      = (*Images)(nil)
	_ rest.SingularNameProvider = (*Images)(nil)
	_ rest.TableConvertor       = (*Images)(nil)
)

// NewImages opens the images resource on backend. verifier verifies signatures; nil leaves
// them as they are. The caller closes the Images before the backend.
func NewImages(backend storage.Backend, verifier Verifier) (*Images, error) {
	codec, i := imageapi.Codecs.LegacyCodec(imagev1.GroupVersion), &Images{backend: backend, verifier: verifier}
	encoded, err := objects.New(objects.Options{
		Backend:        backend,
		Renew:          i.renew,
		Codec:          codec,
		Decode:         decodeStored,
		Encoder:        JSONEncoder(),
		ResourcePrefix: KeyPrefix,
		GroupResource:  imageapi.Images,
		NewFunc:        func() runtime.Object { return &imagev1.Image{} },
		Index:          &imageIndex,
		Brief:          &imageBrief,
		SkipCorrupt:    true,
	})
	if err != nil {
		return nil, err
	}
	common := newStrategy(verifier)
	clients := clientStrategy{common}
	i.encoded, i.Store = encoded, &registry.Store{
		NewFunc:                   func() runtime.Object { return &imagev1.Image{} },
		NewListFunc:               func() runtime.Object { return &imagev1.ImageList{} },
		PredicateFunc:             rules.Match,
		DefaultQualifiedResource:  imageapi.Images,
		SingularQualifiedResource: schema.GroupResource{Group: imageapi.Images.Group, Resource: "image"},
		CreateStrategy:            clients,
		UpdateStrategy:            clients,
		DeleteStrategy:            clients,
		TableConvertor:            rules.Table{},
	}
	options := &generic.StoreOptions{AttrFunc: rules.Attributes, RESTOptions: generic.RESTOptions{
		StorageConfig: &storagebackend.ConfigForResource{
			Config:        storagebackend.Config{Codec: codec},
			GroupResource: imageapi.Images,
		},
		Decorator:               Decorator(encoded),
		ResourcePrefix:          "images",
		DeleteCollectionWorkers: 4,
	}}
	if err := i.CompleteWithOptions(options); err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	own := *i.Store
	own.CreateStrategy, own.UpdateStrategy = registryStrategy{common}, registryStrategy{common}
	i.registry = &own
	return i, nil
}

// EnableGarbageCollection makes deletions honour the propagation policies orphan and foreground,
// by finalizers that the garbage collector of a cluster takes off. Without one an Image would
// keep them for ever.
func (i *Images) EnableGarbageCollection() {
	i.Store.EnableGarbageCollection, i.registry.EnableGarbageCollection = true, true
}

// Close ends all watches.
func (i *Images) Close() { i.encoded.Close() }

// MaintainIndex keeps the index complete until ctx ends.
func (i *Images) MaintainIndex(ctx context.Context) { i.encoded.MaintainIndex(ctx) }

// IndexProgress returns the state of the index.
func (i *Images) IndexProgress() storage.IndexState { return i.encoded.IndexProgress() }

// ReadinessCheck fails while the store is not available. It hides upstream's check, which
// answers at once.
func (i *Images) ReadinessCheck() error { return i.encoded.ReadinessCheck() }

// Decorator hands our store to the generic one, in place of etcd and the watch
// cache.
func Decorator(encoded *objects.Store) generic.StorageDecorator {
	return func(*storagebackend.ConfigForResource, string, func(runtime.Object) (string, error), func() runtime.Object,
		func() runtime.Object, k8sstorage.AttrFunc, k8sstorage.IndexerFuncs, *cache.Indexers,
	) (k8sstorage.Interface, factory.DestroyFunc, error) {
		return encoded, func() {}, nil
	}
}

// JSONEncoder returns the encoder of answers in plain JSON, which the stored bytes
// stand in for.
func JSONEncoder() runtime.Encoder {
	info, _ := runtime.SerializerInfoForMediaType(imageapi.Codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	return imageapi.Codecs.EncoderForVersion(info.Serializer, imagev1.GroupVersion)
}

// Get implements rest.Getter.
func (i *Images) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	if !wantsPlainObjects(ctx) {
		return i.Store.Get(ctx, name, options)
	}
	key, err := i.KeyFunc(ctx, name)
	if err != nil {
		return nil, err
	}
	image, err := i.encoded.GetEncoded(ctx, key, k8sstorage.GetOptions{ResourceVersion: options.ResourceVersion})
	if err != nil {
		return nil, storeerr.InterpretGetError(err, imageapi.Images, name)
	}
	return image, nil
}

// Create implements rest.Creater.
func (i *Images) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	return perform(ctx, i.verifier, func(ctx context.Context) (runtime.Object, error) {
		return i.Store.Create(ctx, obj, validate, options)
	})
}

// Update implements rest.Updater.
func (i *Images) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, forceCreate bool, options *metav1.UpdateOptions,
) (obj runtime.Object, created bool, err error) {
	obj, err = perform(ctx, i.verifier, func(ctx context.Context) (obj runtime.Object, err error) {
		obj, created, err = i.Store.Update(ctx, name, info, create, update, forceCreate, options)
		return obj, err
	})
	return obj, created, err
}

// Change applies fn to the Image called name and writes it for the registry, in one atomic
// step. With create, an Image that does not exist is presented empty. fn may be called several
// times.
func (i *Images) Change(ctx context.Context, name string, create bool, fn func(context.Context, *imagev1.Image) error) error {
	_, err := i.change(internal(ctx), i.registry, name, create, nil, fn)
	return err
}

func (i *Images) change(ctx context.Context, store *registry.Store, name string, create bool, dryRun []string, fn func(context.Context, *imagev1.Image) error) (*imagev1.Image, error) {
	found := false
	info := rest.DefaultUpdatedObjectInfo(nil, func(ctx context.Context, _, old runtime.Object) (runtime.Object, error) {
		found = true
		image := old.DeepCopyObject().(*imagev1.Image)
		return image, fn(ctx, image)
	})
	updated, err := perform(ctx, i.verifier, func(ctx context.Context) (runtime.Object, error) {
		updated, _, err := store.Update(ctx, name, info, nil, nil, create, &metav1.UpdateOptions{DryRun: dryRun})
		return updated, err
	})
	if !found && apierrors.IsNotFound(err) {
		return nil, apierrors.NewNotFound(imageapi.Images, name) // upstream names the resource of the request
	}
	if err != nil {
		return nil, err
	}
	return updated.(*imagev1.Image), nil
}

// Delete implements rest.GracefulDeleter. The generic store reads an Image for its finalizers, and again for the
// preconditions: here that is the same one, unless it has changed.
func (i *Images) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	return i.Store.Delete(objects.WithLastRead(ctx), name, validate, options)
}

// internal is the context of a call that comes from no API request: Images have no namespace.
func internal(ctx context.Context) context.Context { return request.WithNamespace(ctx, "") }

// DeleteUnless deletes the Image called name with the uid, if that is not empty, unless keep
// reports that it is to stay. An Image that is not there, or has another uid, is no error.
func (i *Images) DeleteUnless(ctx context.Context, name string, uid types.UID, keep func(*imagev1.Image) bool) error {
	validate := func(_ context.Context, obj runtime.Object) error {
		if image, ok := obj.(*imagev1.Image); ok && keep(image) {
			return errKept
		}
		return nil
	}
	options := &metav1.DeleteOptions{}
	if uid != "" {
		options.Preconditions = &metav1.Preconditions{UID: &uid}
	}
	_, _, err := i.Delete(internal(ctx), name, validate, options)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || errors.Is(err, errKept) {
		return nil
	}
	return err
}

var errKept = errors.New("the image is to stay")

// DiscardCorrupt deletes the Image called name if it cannot be read. It returns false if
// the Image can be read or does not exist.
func (i *Images) DiscardCorrupt(ctx context.Context, name string) (bool, error) {
	ctx = internal(ctx)
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

// Image returns the Image called name.
func (i *Images) Image(ctx context.Context, name string) (*imagev1.Image, error) {
	obj, err := i.Store.Get(internal(ctx), name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return obj.(*imagev1.Image), nil
}

// Each calls fn with all Images, read page by page.
func (i *Images) Each(ctx context.Context, fn func(*imagev1.Image)) error {
	for options := (&internalversion.ListOptions{Limit: 500}); ; {
		obj, err := i.List(internal(ctx), options)
		if err != nil {
			return err
		}
		list := obj.(*imagev1.ImageList)
		for n := range list.Items {
			fn(&list.Items[n])
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return nil
		}
	}
}
