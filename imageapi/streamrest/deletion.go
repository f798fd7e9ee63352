package streamrest

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	storeerr "k8s.io/apiserver/pkg/storage/errors"
)

// deletable is a resource with an object for each tag, whose deletion untags.
type deletable struct {
	*resource
	*tagWriter
}

var _ k8srest.GracefulDeleter = (*deletable)(nil)

// Delete implements rest.GracefulDeleter. The answer is a Status without details, as OpenShift's.
func (d *deletable) Delete(ctx context.Context, name string, validate k8srest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	p, err := d.place(ctx, name)
	if err != nil {
		return nil, false, err
	}
	admitted := false
	err = d.remove(ctx, p, options.DryRun, func() error {
		obj, err := d.check(ctx, name, options)
		if err != nil || admitted {
			return err
		}
		admitted = true
		return admit(ctx, validate, obj)
	})
	if err != nil {
		return nil, false, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, true, nil
}

// check returns the object called name if it meets the preconditions.
func (d *deletable) check(ctx context.Context, name string, options *metav1.DeleteOptions) (runtime.Object, error) {
	obj, err := d.store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil || options.Preconditions == nil {
		return obj, err
	}
	wanted := &k8sstorage.Preconditions{UID: options.Preconditions.UID, ResourceVersion: options.Preconditions.ResourceVersion}
	return obj, storeerr.InterpretDeleteError(wanted.Check(name, obj), d.of, name)
}
