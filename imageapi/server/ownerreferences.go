package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// ownerReferencesName is the name of kube-apiserver's plugin, which cannot be imported
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#ownerreferencespermissionenforcement).
const ownerReferencesName = "OwnerReferencesPermissionEnforcement"

// ownerReferences is the admission plugin of that name. A user that changes the owners of an object
// decides about its deletion, and has to be allowed to delete it; to let the object block the
// deletion of an owner, the user has to be allowed to set the owner's finalizers.
type ownerReferences struct {
	*admission.Handler
	authorizer authorizer.Authorizer
	mapper     meta.RESTMapper
}

var (
	_ admission.ValidationInterface     = (*ownerReferences)(nil)
	_ initializer.WantsAuthorizer       = (*ownerReferences)(nil)
	_ admission.InitializationValidator = (*ownerReferences)(nil)
)

// newOwnerReferences returns the factory of the plugin. mapper knows the resources of owners.
func newOwnerReferences(mapper meta.RESTMapper) admission.Factory {
	return func(io.Reader) (admission.Interface, error) {
		return &ownerReferences{Handler: admission.NewHandler(admission.Create, admission.Update), mapper: mapper}, nil
	}
}

// SetAuthorizer implements initializer.WantsAuthorizer.
func (o *ownerReferences) SetAuthorizer(a authorizer.Authorizer) { o.authorizer = a }

// ValidateInitialization implements admission.InitializationValidator.
func (o *ownerReferences) ValidateInitialization() error {
	if o.authorizer == nil {
		return errors.New("there is no authorizer")
	}
	return nil
}

// Validate implements admission.ValidationInterface.
func (o *ownerReferences) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetSubresource() != "" {
		return nil
	}
	now, before := owners(a.GetObject()), owners(a.GetOldObject())
	if equality.Semantic.DeepEqual(now, before) {
		return nil
	}
	if a.GetOperation() == admission.Update {
		allowed, reason, err := o.allows(ctx, a, "delete", a.GetResource(), "", a.GetName(), a.GetNamespace())
		if !allowed {
			return admission.NewForbidden(a, fmt.Errorf("cannot set an ownerRef on a resource you can't delete: %s, %w", reason, orNone(err)))
		}
	}
	for _, owner := range now {
		if owner.BlockOwnerDeletion == nil || !*owner.BlockOwnerDeletion || slices.ContainsFunc(before, func(old metav1.OwnerReference) bool { return equality.Semantic.DeepEqual(old, owner) }) {
			continue
		}
		if err := o.mayBlock(ctx, a, owner); err != nil {
			return err
		}
	}
	return nil
}

// mayBlock returns an error if the user may not set the finalizers of an owner.
func (o *ownerReferences) mayBlock(ctx context.Context, a admission.Attributes, owner metav1.OwnerReference) error {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion: apiVersion %q of an owner: %w", owner.APIVersion, err))
	}
	mapping, err := o.mapper.RESTMapping(schema.GroupKind{Group: version.Group, Kind: owner.Kind}, version.Version)
	if err != nil {
		return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion %s Kind %s: %w", owner.APIVersion, owner.Kind, err))
	}
	namespace := ""
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace = a.GetNamespace()
	}
	allowed, reason, err := o.allows(ctx, a, "update", mapping.Resource, "finalizers", owner.Name, namespace)
	if !allowed {
		return admission.NewForbidden(a, fmt.Errorf("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: %s, %w", reason, orNone(err)))
	}
	return nil
}

var errNoOpinion = errors.New("nothing allows it")

func orNone(err error) error {
	if err == nil {
		return errNoOpinion
	}
	return err
}

func (o *ownerReferences) allows(ctx context.Context, a admission.Attributes, verb string, resource schema.GroupVersionResource, subresource, name, namespace string) (allowed bool, reason string, err error) {
	decision, reason, err := o.authorizer.Authorize(ctx, authorizer.AttributesRecord{
		User: a.GetUserInfo(), Verb: verb, APIGroup: resource.Group, APIVersion: resource.Version, Resource: resource.Resource,
		Subresource: subresource, Name: name, Namespace: namespace, ResourceRequest: true,
	})
	return decision == authorizer.DecisionAllow, reason, err
}

// owners returns the owners of an object, none of one that is not there.
func owners(obj runtime.Object) []metav1.OwnerReference {
	if obj == nil {
		return nil
	}
	accessor, err := meta.Accessor(obj)
	if err != nil {
		return nil
	}
	return accessor.GetOwnerReferences()
}
