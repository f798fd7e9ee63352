package server

import (
	"context"
	"errors"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// TestOwnerReferences: the permissions that changes of owners need, as kube-apiserver's plugin asks
// for them.
func TestOwnerReferences(t *testing.T) {
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Node"}, meta.RESTScopeRoot)
	may := map[string]bool{}
	plugin, err := newOwnerReferences(mapper)(nil)
	if err != nil {
		t.Fatal(err)
	}
	o := plugin.(*ownerReferences)
	if o.ValidateInitialization() == nil {
		t.Error("it needs no authorizer")
	}
	o.SetAuthorizer(authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		resource := a.GetResource()
		if a.GetSubresource() != "" {
			resource += "/" + a.GetSubresource()
		}
		asked := a.GetUser().GetName() + " " + a.GetVerb() + " " + resource + " " + a.GetName()
		if may[asked] {
			return authorizer.DecisionAllow, "", nil
		}
		return authorizer.DecisionNoOpinion, "asked for " + asked, errors.New("no rule")
	}))
	yes, no := true, false
	node := func(kind string, blocks *bool) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "v1", Kind: kind, Name: "n", UID: "u", BlockOwnerDeletion: blocks}
	}
	const mayDelete, mayBlock = "somebody delete images a", "somebody update nodes/finalizers n"
	for name, c := range map[string]struct {
		before, now []metav1.OwnerReference
		created     bool
		may         []string
		want        string // the error; none if empty
	}{
		"no owners":                      {},
		"the same owners":                {before: []metav1.OwnerReference{node("Node", &yes)}, now: []metav1.OwnerReference{node("Node", &yes)}},
		"an owner":                       {now: []metav1.OwnerReference{node("Node", nil)}, want: "asked for " + mayDelete},
		"an owner less":                  {before: []metav1.OwnerReference{node("Node", nil)}, want: "you can't delete"},
		"an owner, may delete":           {now: []metav1.OwnerReference{node("Node", &no)}, may: []string{mayDelete}},
		"an owner of a new one":          {now: []metav1.OwnerReference{node("Node", nil)}, created: true},
		"blocks":                         {now: []metav1.OwnerReference{node("Node", &yes)}, may: []string{mayDelete}, want: "asked for " + mayBlock},
		"blocks from the beginning":      {now: []metav1.OwnerReference{node("Node", &yes)}, created: true, want: "you can't set finalizers on"},
		"blocks, may":                    {now: []metav1.OwnerReference{node("Node", &yes)}, may: []string{mayDelete, mayBlock}},
		"begins to block":                {before: []metav1.OwnerReference{node("Node", nil)}, now: []metav1.OwnerReference{node("Node", &yes)}, may: []string{mayDelete}, want: mayBlock},
		"ceases to block":                {before: []metav1.OwnerReference{node("Node", &yes)}, now: []metav1.OwnerReference{node("Node", nil)}, may: []string{mayDelete}},
		"an owner that nobody knows":     {now: []metav1.OwnerReference{node("Thing", &yes)}, may: []string{mayDelete}, want: "cannot find RESTMapping for APIVersion v1 Kind Thing"},
		"an owner of an impossible kind": {now: []metav1.OwnerReference{{APIVersion: "a/b/c", Kind: "Node", BlockOwnerDeletion: &yes}}, created: true, want: `apiVersion "a/b/c"`},
	} {
		clear(may)
		for _, allowed := range c.may {
			may[allowed] = true
		}
		image := func(owners []metav1.OwnerReference) *imagev1.Image {
			return &imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: "a", OwnerReferences: owners}}
		}
		attributes := func(subresource string) admission.Attributes {
			kind, resource, by := imagev1.GroupVersion.WithKind("Image"), imagev1.GroupVersion.WithResource("images"), &user.DefaultInfo{Name: "somebody"}
			if c.created {
				return admission.NewAttributesRecord(image(c.now), nil, kind, "", "a", resource, subresource, admission.Create, &metav1.CreateOptions{}, false, by)
			}
			return admission.NewAttributesRecord(image(c.now), image(c.before), kind, "", "a", resource, subresource, admission.Update, &metav1.UpdateOptions{}, false, by)
		}
		err := o.Validate(t.Context(), attributes(""), nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err := o.Validate(t.Context(), attributes("status"), nil); err != nil {
			t.Errorf("%s, of a subresource: %v", name, err)
		}
	}
}
