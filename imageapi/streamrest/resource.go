// Package streamrest has the namespaced resources of the API: image streams, their tags and their images.
// They are how everybody but an administrator reads images.
//
// # Guarantees
//
// A user who may read one namespace learns of it alone: an Image is shown as streams.ImageIn shows it.
// Lists and watches are ordinary Kubernetes ones, at the revisions of the store.
package streamrest

import (
	"context"
	"errors"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
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
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/names"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"tallyman/imageapi"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/storage"
	"tallyman/storage/objects"
)

// options configures newResource.
type options struct {
	backend  storage.Backend
	prefix   string // of the keys in backend
	resource schema.GroupResource
	singular string
	// short is its short name, all whether `get all` is to have it.
	short   string
	all     bool
	newFunc func() runtime.Object
	newList func() runtime.Object
	// shared is set if one change may be one of several objects.
	shared bool
	// key returns the part of a key behind the namespace and a slash.
	key func(namespace, name string) (string, error)
	// fields are those that select objects, besides metadata.name and metadata.namespace; nil for none.
	fields func(obj runtime.Object) fields.Set
	table  *streams.Table
}

// resource is a namespaced resource to be read: upstream's generic store on keys with a namespace.
type resource struct {
	k8srest.TableConvertor
	options
	store   *registry.Store
	encoded *objects.Store
}

var (
	_ k8srest.Getter               = (*resource)(nil)
	_ k8srest.Lister               = (*resource)(nil)
	_ k8srest.Watcher              = (*resource)(nil)
	_ k8srest.Scoper               = (*resource)(nil)
	_ k8srest.SingularNameProvider = (*resource)(nil)
	_ k8srest.ShortNamesProvider   = (*resource)(nil)
	_ k8srest.CategoriesProvider   = (*resource)(nil)
)

func newResource(o options) (*resource, error) {
	codec := imageapi.Codecs.LegacyCodec(imagev1.GroupVersion)
	encoded, err := objects.New(objects.Options{
		Backend: o.backend, Codec: codec, Encoder: rest.JSONEncoder(), ResourcePrefix: o.prefix, GroupResource: o.resource,
		NewFunc: o.newFunc, SkipCorrupt: true, SharedRevisions: o.shared,
	})
	if err != nil {
		return nil, err
	}
	r := &resource{TableConvertor: o.table, options: o, encoded: encoded}
	strategy := readOnlyStrategy{imageapi.Scheme, names.SimpleNameGenerator}
	r.store = &registry.Store{
		NewFunc:     o.newFunc,
		NewListFunc: o.newList,
		PredicateFunc: func(label labels.Selector, field fields.Selector) k8sstorage.SelectionPredicate {
			return k8sstorage.SelectionPredicate{Label: label, Field: field, GetAttrs: r.attributes}
		},
		KeyRootFunc:               r.keyRoot,
		KeyFunc:                   r.keyOf,
		DefaultQualifiedResource:  o.resource,
		SingularQualifiedResource: schema.GroupResource{Group: o.resource.Group, Resource: o.singular},
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		TableConvertor:            o.table,
	}
	err = r.store.CompleteWithOptions(&generic.StoreOptions{AttrFunc: r.attributes, RESTOptions: generic.RESTOptions{
		StorageConfig:  &storagebackend.ConfigForResource{Config: storagebackend.Config{Codec: codec}, GroupResource: o.resource},
		Decorator:      rest.Decorator(encoded),
		ResourcePrefix: o.prefix,
	}})
	if err != nil {
		encoded.Close()
		return nil, fmt.Errorf("%s: %w", o.resource.Resource, err)
	}
	return r, nil
}

// keyRoot returns the beginning of the keys in the namespace of ctx.
func (r *resource) keyRoot(ctx context.Context) string {
	if namespace, ok := request.NamespaceFrom(ctx); ok && namespace != "" {
		return r.prefix + namespace + "/"
	}
	return r.prefix
}

// keyOf returns the key of the object called name in the namespace of ctx.
func (r *resource) keyOf(ctx context.Context, name string) (string, error) {
	namespace, ok := request.NamespaceFrom(ctx)
	if !ok || namespace == "" {
		return "", apierrors.NewBadRequest("a namespace is required")
	}
	key, err := r.key(namespace, name)
	if err != nil {
		return "", apierrors.NewBadRequest(err.Error())
	}
	return r.prefix + key, nil
}

// tagKey is the options.key of resources that have an object for each tag.
func tagKey(namespace, name string) (string, error) {
	stream, tag, err := streams.ParseTagName(name)
	return streams.Key(namespace, stream, tag), err
}

func (r *resource) attributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	object, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, err
	}
	attributes := fields.Set{}
	if r.fields != nil {
		attributes = r.fields(obj)
	}
	attributes["metadata.name"], attributes["metadata.namespace"] = object.GetName(), object.GetNamespace()
	return object.GetLabels(), attributes, nil
}

// listed returns r as a resource whose lists are streamed. Its objects are of a kind, and empty makes lists
// without any.
func (r *resource) listed(kind string, empty func(metav1.ListMeta) runtime.Object) *rest.Listed {
	return &rest.Listed{
		Resource: r.resource, Kind: kind, Store: r.encoded, KeyRoot: r.keyRoot, Predicate: r.store.PredicateFunc, List: r.List, Empty: empty,
		Table: r, Columns: r.table.Columns, Cells: r.table.Cells,
	}
}

// Close ends all watches.
func (r *resource) Close() { r.encoded.Close() }

// New implements rest.Storage.
func (r *resource) New() runtime.Object { return r.newFunc() }

// NewList implements rest.Lister.
func (r *resource) NewList() runtime.Object { return r.newList() }

// Destroy implements rest.Storage.
func (r *resource) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (r *resource) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (r *resource) GetSingularName() string { return r.singular }

// ShortNames implements rest.ShortNamesProvider.
func (r *resource) ShortNames() []string { return []string{r.short} }

// Categories implements rest.CategoriesProvider.
func (r *resource) Categories() []string {
	if r.all {
		return []string{"all"}
	}
	return nil
}

// Get implements rest.Getter.
func (r *resource) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return r.store.Get(ctx, name, options)
}

// List implements rest.Lister.
func (r *resource) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	return r.store.List(ctx, options)
}

// Watch implements rest.Watcher.
func (r *resource) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	return r.store.Watch(ctx, options)
}

// virtual is the part that all namespaced resources share of which no objects are stored.
type virtual struct{ singular string }

// Destroy implements rest.Storage.
func (virtual) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (virtual) NamespaceScoped() bool { return true }

// GetSingularName implements rest.SingularNameProvider.
func (v virtual) GetSingularName() string { return v.singular }

// readOnlyStrategy is that of a resource that no client writes. The generic store wants one.
type readOnlyStrategy struct {
	runtime.ObjectTyper
	names.NameGenerator
}

var errReadOnly = errors.New("the registry writes it")

func (readOnlyStrategy) NamespaceScoped() bool                                            { return true }
func (readOnlyStrategy) PrepareForCreate(context.Context, runtime.Object)                 {}
func (readOnlyStrategy) PrepareForUpdate(context.Context, runtime.Object, runtime.Object) {}
func (readOnlyStrategy) Canonicalize(runtime.Object)                                      {}
func (readOnlyStrategy) AllowCreateOnUpdate(context.Context) bool                         { return false }
func (readOnlyStrategy) AllowUnconditionalUpdate(context.Context) bool                    { return false }
func (readOnlyStrategy) WarningsOnCreate(context.Context, runtime.Object) []string        { return nil }
func (readOnlyStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}

func (readOnlyStrategy) Validate(context.Context, runtime.Object) field.ErrorList { return readOnly() }

func (readOnlyStrategy) ValidateUpdate(context.Context, runtime.Object, runtime.Object) field.ErrorList {
	return readOnly()
}

func readOnly() field.ErrorList { return field.ErrorList{field.InternalError(nil, errReadOnly)} }
