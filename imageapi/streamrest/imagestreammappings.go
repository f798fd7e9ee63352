package streamrest

import (
	"context"
	"fmt"
	"net/http"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
	"tallyman/storage/objects"
)

const kindMapping = "ImageStreamMapping"

// imageStreamMappings is the imagestreammappings resource: a request to have a tag of a stream point to a
// manifest that its repository holds.
type imageStreamMappings struct {
	virtual
	*tagWriter
	resolver *resolver
}

var (
	_ k8srest.Creater              = (*imageStreamMappings)(nil)
	_ k8srest.Scoper               = (*imageStreamMappings)(nil)
	_ k8srest.SingularNameProvider = (*imageStreamMappings)(nil)
)

// New implements rest.Storage.
func (*imageStreamMappings) New() runtime.Object { return &imagev1.ImageStreamMapping{} }

// Create implements rest.Creater. The answer is a Status, as OpenShift's.
func (m *imageStreamMappings) Create(ctx context.Context, obj runtime.Object, validate k8srest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	mapping := obj.(*imagev1.ImageStreamMapping)
	namespace := request.NamespaceValue(ctx)
	if err := k8srest.EnsureObjectNamespaceMatchesRequestNamespace(namespace, mapping); err != nil {
		return nil, err
	}
	if errs := validateMapping(m.resolver.names, namespace, mapping); len(errs) > 0 {
		return nil, apierrors.NewInvalid(imagev1.GroupVersion.WithKind(kindMapping).GroupKind(), mapping.Name, errs)
	}
	if err := admit(ctx, validate, mapping); err != nil {
		return nil, err
	}
	name := digest.Digest(mapping.Image.Name)
	p := place{streams.Stream{Namespace: namespace, Name: mapping.Name}, mapping.Tag, mapping.Name}
	former, again := "", false
	_, err := m.write(ctx, p, options.DryRun, func(before *streamwriter.State, after *imagev1.ImageStream) error {
		if before.Stream == nil { // by this a registry knows that it is to make the stream
			return apierrors.NewNotFound(m.of, mapping.Name)
		}
		head := ""
		if item := streams.Head(before.Stream, p.tag); item != nil {
			head = item.Image
		}
		if again && head != former { // another one has pushed the tag since the client has asked for it
			return apierrors.NewConflict(m.of, mapping.Name, fmt.Errorf("the tag %q points to %q now", p.tag, head))
		}
		former, again = head, true
		held, err := m.resolver.image(ctx, p.stream, name.String())
		if err != nil {
			return objects.Unavailable(err)
		}
		if held == "" {
			return invalid(kindMapping, mapping.Name, field.NotFound(field.NewPath("image", "metadata", "name"), name.String()))
		}
		change := &resolution{resolver: m.resolver, after: after}
		change.point(p.tag, imagev1.TagEvent{DockerImageReference: m.resolver.pullReference(p.stream, name), Image: name.String(), Generation: after.Generation})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}, nil
}

func validateMapping(names streams.Names, namespace string, mapping *imagev1.ImageStreamMapping) field.ErrorList {
	errs := streams.ValidateName(names, namespace, mapping.Name)
	if mapping.Tag == "" {
		errs = append(errs, field.Required(field.NewPath("tag"), ""))
	} else {
		errs = append(errs, streams.ValidateTagName(mapping.Tag, field.NewPath("tag"))...)
	}
	if mapping.Image.Name == "" {
		return append(errs, field.Required(field.NewPath("image", "metadata", "name"), ""))
	}
	if err := digest.Digest(mapping.Image.Name).Validate(); err != nil {
		errs = append(errs, field.Invalid(field.NewPath("image", "metadata", "name"), mapping.Image.Name, "must be the digest of a manifest"))
	}
	return errs
}
