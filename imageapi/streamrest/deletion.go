package streamrest

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
	"k8s.io/apiserver/pkg/util/dryrun"

	"tallyman/imageapi/streams"
)

// deletable is a resource with an object for each tag, whose deletion untags.
type deletable struct {
	*resource
	names    streams.Names
	registry Registry
}

var _ k8srest.GracefulDeleter = (*deletable)(nil)

// Delete implements rest.GracefulDeleter. The answer is a Status without details, as OpenShift's.
func (d *deletable) Delete(ctx context.Context, name string, validate k8srest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	obj, err := d.check(ctx, name, options)
	if err != nil {
		return nil, false, err
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, false, err
		}
	}
	done := &metav1.Status{Status: metav1.StatusSuccess}
	if dryrun.IsDryRun(options.DryRun) {
		return done, true, nil
	}
	stream, tag, err := streams.ParseTagName(name)
	if err != nil {
		return nil, false, apierrors.NewBadRequest(err.Error())
	}
	repository, err := d.names.Repository(streams.Stream{Namespace: request.NamespaceValue(ctx), Name: stream})
	if err != nil {
		return nil, false, apierrors.NewNotFound(d.options.resource, name)
	}
	user := ""
	if info, ok := request.UserFrom(ctx); ok {
		user = info.GetName()
	}
	err = d.registry.Untag(ctx, user, repository, tag, func(ctx context.Context) error {
		_, err := d.check(ctx, name, options)
		return err
	})
	if refused := (*RefusedError)(nil); errors.As(err, &refused) {
		err = apierrors.NewForbidden(d.options.resource, name, refused)
	}
	return done, true, err
}

// check returns the object called name if it meets the preconditions.
func (d *deletable) check(ctx context.Context, name string, options *metav1.DeleteOptions) (runtime.Object, error) {
	obj, err := d.store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil || options.Preconditions == nil {
		return obj, err
	}
	wanted := &k8sstorage.Preconditions{UID: options.Preconditions.UID, ResourceVersion: options.Preconditions.ResourceVersion}
	return obj, storeerr.InterpretDeleteError(wanted.Check(name, obj), d.options.resource, name)
}
