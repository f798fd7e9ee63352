package streamrest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"tallyman/imageapi/streamwriter"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/request"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
)

// deleter is a resource whose objects can be read and deleted.
type deleter interface {
	k8srest.Getter
	k8srest.GracefulDeleter
}

// TestDeleteTags: a deletion of an image stream tag or an image tag untags, if all that it wants holds, also
// when the tag changes meanwhile.
func TestDeleteTags(t *testing.T) {
	type attempt struct {
		options *metav1.DeleteOptions
		name    string
		change  func(h *house) // meanwhile
		admit   error
		refuses error
	}
	preconditions := func(obj runtime.Object, uid, revision bool) *metav1.DeleteOptions {
		object, err := meta.Accessor(obj)
		if err != nil {
			t.Fatal(err)
		}
		p := &metav1.Preconditions{}
		if uid {
			p.UID = new(types.UID)
			*p.UID = object.GetUID()
		}
		if revision {
			p.ResourceVersion = new(string)
			*p.ResourceVersion = object.GetResourceVersion()
		}
		return &metav1.DeleteOptions{Preconditions: p}
	}
	move := func(h *house) { h.push("team/app:v1", "b") }
	replace := func(h *house) {
		h.untag("team/app:v1")
		move(h)
	}
	for name, test := range map[string]struct {
		attempt func(present runtime.Object) attempt
		refused func(error) bool // nil for a success
		stays   bool
	}{
		"anything":        {func(runtime.Object) attempt { return attempt{} }, nil, false},
		"anything, moved": {func(runtime.Object) attempt { return attempt{change: move} }, nil, false},
		"dry run":         {func(runtime.Object) attempt { return attempt{options: &metav1.DeleteOptions{DryRun: []string{"All"}}} }, nil, true},
		"this one":        {func(o runtime.Object) attempt { return attempt{options: preconditions(o, true, true)} }, nil, false},
		"this uid, moved": {func(o runtime.Object) attempt { return attempt{options: preconditions(o, true, false), change: move} }, nil, false},
		"this uid, replaced": {func(o runtime.Object) attempt {
			return attempt{options: preconditions(o, true, false), change: replace}
		}, apierrors.IsConflict, true},
		"this revision, moved": {func(o runtime.Object) attempt { return attempt{options: preconditions(o, false, true), change: move} }, apierrors.IsConflict, true},
		"gone meanwhile":       {func(runtime.Object) attempt { return attempt{change: func(h *house) { h.untag("team/app:v1") }} }, apierrors.IsNotFound, false},
		"no such tag":          {func(runtime.Object) attempt { return attempt{name: "app:v2"} }, apierrors.IsNotFound, true},
		"no name":              {func(runtime.Object) attempt { return attempt{name: "app"} }, apierrors.IsBadRequest, true},
		"not admitted":         {func(runtime.Object) attempt { return attempt{admit: apierrors.NewTooManyRequests("x", 1)} }, apierrors.IsTooManyRequests, true},
		"refused by the registry": {func(runtime.Object) attempt {
			return attempt{refuses: &streamwriter.RefusedError{Reason: "it is immutable"}}
		}, apierrors.IsForbidden, true},
		"a failure of the registry": {func(runtime.Object) attempt { return attempt{refuses: apierrors.NewInternalError(errors.New("disk"))} }, apierrors.IsInternalError, true},
	} {
		for kind, of := range map[string]func(h *house) deleter{
			"imagestreamtag": func(h *house) deleter { return h.streamTags },
			"imagetag":       func(h *house) deleter { return h.tags },
		} {
			h := newHouse(t)
			h.push("team/app:v1", "a")
			resource := of(h)
			a := test.attempt(h.get(resource, "team", "app:v1"))
			if a.name == "" {
				a.name = "app:v1"
			}
			if a.options == nil {
				a.options = &metav1.DeleteOptions{}
			}
			if h.refuses = a.refuses; a.change != nil {
				h.before = func() { a.change(h) }
			}
			admit := func(context.Context, runtime.Object) error { return a.admit }
			ctx := request.WithUser(h.of("team"), &user.DefaultInfo{Name: "alice"})
			answer, deleted, err := resource.Delete(ctx, a.name, admit, a.options)
			if test.refused == nil {
				status, ok := answer.(*metav1.Status)
				if err != nil || !deleted || !ok || status.Status != metav1.StatusSuccess || !test.stays && !strings.HasPrefix(h.moves[len(h.moves)-1], "alice: team/app:v1=") {
					t.Errorf("%s, %s: %v, %t, %v by %q", name, kind, answer, deleted, err, h.moves)
				}
			} else if !test.refused(err) {
				t.Errorf("%s, %s: %v", name, kind, err)
			}
			if _, err := resource.Get(h.of("team"), "app:v1", &metav1.GetOptions{}); apierrors.IsNotFound(err) == test.stays {
				t.Errorf("%s, %s: afterwards %v", name, kind, err)
			}
		}
	}
}
