package streamrest

import (
	"context"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
)

// secrets is the subresource imagestreams/secrets: the credentials of a namespace for other registries,
// of which this API keeps none.
type secrets struct{}

var _ k8srest.Getter = secrets{}

// New implements rest.Storage.
func (secrets) New() runtime.Object { return &imagev1.SecretList{} }

// Destroy implements rest.Storage.
func (secrets) Destroy() {}

// Get implements rest.Getter. As on OpenShift, the stream need not be there.
func (secrets) Get(context.Context, string, *metav1.GetOptions) (runtime.Object, error) {
	return &imagev1.SecretList{Items: []corev1.Secret{}}, nil
}
