package rest

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// review is the REST storage of a review: it is created, answered, and not kept. `kubectl auth
// can-i` and `kubectl auth whoami` create reviews (kube-apiserver's pkg/registry/authorization
// and pkg/registry/authentication).
type review struct {
	newObject func() runtime.Object
	singular  string
	answer    func(ctx context.Context, u user.Info, obj runtime.Object) error
}

var (
	_ rest.Creater              = (*review)(nil)
	_ rest.Scoper               = (*review)(nil)
	_ rest.SingularNameProvider = (*review)(nil)
)

// New implements rest.Storage.
func (r *review) New() runtime.Object { return r.newObject() }

// Destroy implements rest.Storage.
func (*review) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*review) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (r *review) GetSingularName() string { return r.singular }

// Create implements rest.Creater.
func (r *review) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	u, ok := request.UserFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	if validate != nil {
		if err := validate(ctx, obj.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	return obj, r.answer(ctx, u, obj)
}

// AuthorizationReviews are the resources of authorization.k8s.io/v1.
func AuthorizationReviews(a authorizer.Authorizer, rules authorizer.RuleResolver) map[string]rest.Storage {
	return map[string]rest.Storage{
		"selfsubjectaccessreviews": &review{
			newObject: func() runtime.Object { return &authorizationv1.SelfSubjectAccessReview{} }, singular: "selfsubjectaccessreview",
			answer: func(ctx context.Context, u user.Info, obj runtime.Object) error {
				r := obj.(*authorizationv1.SelfSubjectAccessReview)
				attributes, err := attributesOf(u, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
				if err != nil {
					return err
				}
				r.Status = decide(ctx, a, attributes)
				return nil
			},
		},
		"subjectaccessreviews": &review{
			newObject: func() runtime.Object { return &authorizationv1.SubjectAccessReview{} }, singular: "subjectaccessreview",
			answer: func(ctx context.Context, _ user.Info, obj runtime.Object) error {
				r := obj.(*authorizationv1.SubjectAccessReview)
				if r.Spec.User == "" && len(r.Spec.Groups) == 0 {
					return apierrors.NewBadRequest("spec: want at least one of user and groups")
				}
				about := &user.DefaultInfo{Name: r.Spec.User, UID: r.Spec.UID, Groups: r.Spec.Groups, Extra: map[string][]string{}}
				for key, values := range r.Spec.Extra {
					about.Extra[key] = values
				}
				attributes, err := attributesOf(about, r.Spec.ResourceAttributes, r.Spec.NonResourceAttributes)
				if err != nil {
					return err
				}
				r.Status = decide(ctx, a, attributes)
				return nil
			},
		},
		"selfsubjectrulesreviews": &review{
			newObject: func() runtime.Object { return &authorizationv1.SelfSubjectRulesReview{} }, singular: "selfsubjectrulesreview",
			answer: func(ctx context.Context, u user.Info, obj runtime.Object) error {
				r := obj.(*authorizationv1.SelfSubjectRulesReview)
				r.Status = listRules(ctx, rules, u, r.Spec.Namespace)
				return nil
			},
		},
	}
}

// AuthenticationReviews are the resources of authentication.k8s.io/v1.
func AuthenticationReviews() map[string]rest.Storage {
	return map[string]rest.Storage{"selfsubjectreviews": &review{
		newObject: func() runtime.Object { return &authenticationv1.SelfSubjectReview{} }, singular: "selfsubjectreview",
		answer: func(_ context.Context, u user.Info, obj runtime.Object) error {
			info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
			for key, values := range u.GetExtra() {
				if info.Extra == nil {
					info.Extra = map[string]authenticationv1.ExtraValue{}
				}
				info.Extra[key] = values
			}
			obj.(*authenticationv1.SelfSubjectReview).Status = authenticationv1.SelfSubjectReviewStatus{UserInfo: info}
			return nil
		},
	}}
}

func attributesOf(u user.Info, resource *authorizationv1.ResourceAttributes, path *authorizationv1.NonResourceAttributes) (authorizer.Attributes, error) {
	switch {
	case (resource == nil) == (path == nil):
		return nil, apierrors.NewBadRequest("spec: want one of resourceAttributes and nonResourceAttributes")
	case path != nil:
		return authorizer.AttributesRecord{User: u, Verb: path.Verb, Path: path.Path}, nil
	}
	return authorizer.AttributesRecord{
		User: u, Verb: resource.Verb, Namespace: resource.Namespace, APIGroup: resource.Group, APIVersion: resource.Version,
		Resource: resource.Resource, Subresource: resource.Subresource, Name: resource.Name, ResourceRequest: true,
	}, nil
}

func decide(ctx context.Context, a authorizer.Authorizer, attributes authorizer.Attributes) authorizationv1.SubjectAccessReviewStatus {
	decision, reason, err := a.Authorize(ctx, attributes)
	status := authorizationv1.SubjectAccessReviewStatus{
		Allowed: decision == authorizer.DecisionAllow, Denied: decision == authorizer.DecisionDeny, Reason: reason,
	}
	if err != nil {
		status.EvaluationError = err.Error()
	}
	return status
}

func listRules(ctx context.Context, rules authorizer.RuleResolver, u user.Info, namespace string) authorizationv1.SubjectRulesReviewStatus {
	if namespace == "" {
		namespace = metav1.NamespaceDefault // some resolvers want one
	}
	resources, others, incomplete, err := rules.RulesFor(ctx, u, namespace)
	status := authorizationv1.SubjectRulesReviewStatus{
		Incomplete: incomplete, ResourceRules: []authorizationv1.ResourceRule{}, NonResourceRules: []authorizationv1.NonResourceRule{},
	}
	for _, r := range resources {
		status.ResourceRules = append(status.ResourceRules, authorizationv1.ResourceRule{
			Verbs: r.GetVerbs(), APIGroups: r.GetAPIGroups(), Resources: r.GetResources(), ResourceNames: r.GetResourceNames(),
		})
	}
	for _, r := range others {
		status.NonResourceRules = append(status.NonResourceRules, authorizationv1.NonResourceRule{Verbs: r.GetVerbs(), NonResourceURLs: r.GetNonResourceURLs()})
	}
	if err != nil {
		status.EvaluationError = fmt.Sprint(err)
	}
	return status
}
