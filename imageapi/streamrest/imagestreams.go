package streamrest

import (
	"context"
	"errors"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic/registry"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"tallyman/imageapi"
	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
	"tallyman/imageapi/views"
	"tallyman/storage"
)

// imageStreams is the imagestreams resource.
type imageStreams struct {
	*resource
	registry streamwriter.Registry
}

var (
	_ k8srest.Creater             = (*imageStreams)(nil)
	_ k8srest.Updater             = (*imageStreams)(nil)
	_ k8srest.GracefulDeleter     = (*imageStreams)(nil)
	_ k8srest.CollectionDeleter   = (*imageStreams)(nil)
	_ k8srest.Patcher             = (*imageStreams)(nil)
	_ k8srest.CreaterUpdater      = (*imageStreams)(nil)
	_ k8srest.ResetFieldsStrategy = (*imageStreams)(nil)
)

// newImageStreams opens the imagestreams resource. host is the registry's own host[:port] for pull
// references, "" for none.
func newImageStreams(backend storage.Backend, hosts streams.Hosts, writer *streamwriter.Writer, strategy streamStrategy, changes streamwriter.Registry) (*imageStreams, error) {
	opened, err := newResource(options{
		backend: views.ImageStreams(backend, strategy.resolver.names, hosts, writer), prefix: views.ImageStreamPrefix, resource: imageapi.ImageStreams, singular: "imagestream", short: "is", all: true,
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
	if err != nil {
		return nil, err
	}
	opened.store.CreateStrategy, opened.store.UpdateStrategy, opened.store.DeleteStrategy = strategy, strategy, strategy
	return &imageStreams{opened, changes}, nil
}

var errStreamName = errors.New("the name of an image stream is required, without a tag")

func streamKey(namespace, name string) (string, error) {
	if !streams.IsName(name) {
		return "", errStreamName
	}
	return namespace + "/" + name, nil
}

// resets returns the fields that an apply does not own, by the first segments of their paths.
func resets(parts ...string) map[fieldpath.APIVersion]*fieldpath.Set {
	set := fieldpath.NewSet()
	for _, part := range parts {
		set.Insert(fieldpath.MakePathOrDie(part))
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(imagev1.GroupVersion.String()): set}
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s *imageStreams) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return resets("status")
}

// Create implements rest.Creater.
func (s *imageStreams) Create(ctx context.Context, obj runtime.Object, validate k8srest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	ctx, away := withOutage(ctx)
	created, err := s.store.Create(ctx, obj, validate, options)
	if err = away.or(err); err != nil || dryrun.IsDryRun(options.DryRun) {
		return created, err
	}
	return s.written(ctx, created), nil
}

// Update implements rest.Updater.
func (s *imageStreams) Update(ctx context.Context, name string, info k8srest.UpdatedObjectInfo, create k8srest.ValidateObjectFunc,
	update k8srest.ValidateObjectUpdateFunc, forceAllowCreate bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return s.update(ctx, s.store, name, info, create, update, forceAllowCreate, options)
}

func (s *imageStreams) update(ctx context.Context, store *registry.Store, name string, info k8srest.UpdatedObjectInfo, create k8srest.ValidateObjectFunc,
	update k8srest.ValidateObjectUpdateFunc, forceAllowCreate bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	ctx, away := withOutage(ctx)
	updated, created, err := store.Update(ctx, name, info, create, update, forceAllowCreate, options)
	if err = away.or(err); err != nil || dryrun.IsDryRun(options.DryRun) {
		return updated, created, err
	}
	return s.written(ctx, updated), created, nil
}

// written returns a stream that was written as it is now, with the pushes that the registry has made of it.
func (s *imageStreams) written(ctx context.Context, obj runtime.Object) runtime.Object {
	now, err := s.store.Get(ctx, obj.(*imagev1.ImageStream).Name, &metav1.GetOptions{})
	if err != nil { // it is gone again
		return obj
	}
	return now
}

// Delete implements rest.GracefulDeleter: the tags go first, then the stream.
func (s *imageStreams) Delete(ctx context.Context, name string, validate k8srest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	return s.store.Delete(ctx, name, s.deletable(validate), options)
}

// DeleteCollection implements rest.CollectionDeleter.
func (s *imageStreams) DeleteCollection(ctx context.Context, validate k8srest.ValidateObjectFunc, options *metav1.DeleteOptions, list *internalversion.ListOptions) (runtime.Object, error) {
	return s.store.DeleteCollection(ctx, s.deletable(validate), options, list)
}

// deletable returns a validation that fails besides if the registry would keep a tag of the stream.
func (s *imageStreams) deletable(validate k8srest.ValidateObjectFunc) k8srest.ValidateObjectFunc {
	return func(ctx context.Context, obj runtime.Object) error {
		if validate != nil {
			if err := validate(ctx, obj); err != nil {
				return err
			}
		}
		stream := obj.(*imagev1.ImageStream)
		var tags []string
		for i := range stream.Status.Tags {
			if items := stream.Status.Tags[i].Items; len(items) > 0 && items[0].Image != "" {
				tags = append(tags, stream.Status.Tags[i].Tag)
			}
		}
		if len(tags) == 0 {
			return nil
		}
		err := s.registry.MayUntag(ctx, stream.Annotations[records.AnnotationRepository], tags)
		return streamwriter.Forbidden(err, imageapi.ImageStreams, stream.Name)
	}
}

// imageStreamStatus is the subresource imagestreams/status.
type imageStreamStatus struct {
	streams *imageStreams
	store   *registry.Store
}

var (
	_ k8srest.Patcher             = (*imageStreamStatus)(nil)
	_ k8srest.Updater             = (*imageStreamStatus)(nil)
	_ k8srest.ResetFieldsStrategy = (*imageStreamStatus)(nil)
)

func newImageStreamStatus(all *imageStreams, strategy statusStrategy) *imageStreamStatus {
	store := *all.store
	store.UpdateStrategy = strategy
	return &imageStreamStatus{all, &store}
}

// New implements rest.Storage.
func (s *imageStreamStatus) New() runtime.Object { return &imagev1.ImageStream{} }

// Destroy implements rest.Storage.
func (s *imageStreamStatus) Destroy() {}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s *imageStreamStatus) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return resets("spec", "metadata")
}

// Get implements rest.Getter.
func (s *imageStreamStatus) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}

// Update implements rest.Updater.
func (s *imageStreamStatus) Update(ctx context.Context, name string, info k8srest.UpdatedObjectInfo, create k8srest.ValidateObjectFunc,
	update k8srest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions,
) (runtime.Object, bool, error) {
	return s.streams.update(ctx, s.store, name, info, create, update, false, options)
}
