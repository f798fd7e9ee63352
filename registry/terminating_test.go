package registry

import (
	"context"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/registry/tracker"
)

// TestPushDuringDeletion: a push into an Image that waits for its finalizers is acknowledged, and
// makes a new Image once the former is gone, with either policy.
func TestPushDuringDeletion(t *testing.T) {
	for _, policy := range []tracker.FailurePolicy{tracker.Defer, tracker.Reject} {
		h := newHouse(t, policy)
		d := h.mustPush("a", "v1", "one")
		finalizers := func(list ...string) {
			t.Helper()
			if err := h.images.Change(t.Context(), d.String(), false, func(_ context.Context, image *imagev1.Image) error {
				image.Finalizers = list
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		finalizers("example.com/archive")
		if err := h.remove("a", d); err != nil {
			t.Fatal(err)
		}
		former, err := h.catalog.Get(t.Context(), d)
		if err != nil || former.DeletionTimestamp == nil {
			t.Fatalf("it is not being deleted: %+v, %v", former, err)
		}
		h.mustPush("a", "v2", "one")
		if got := h.lives(d); got != "a a:v2" {
			t.Errorf("%s: while it is being deleted it lives in %q", policy, got)
		}
		if left := h.tracker.Drain(t.Context()); left == 0 {
			t.Errorf("%s: nothing is left to do", policy)
		}
		finalizers()
		if got := h.lives(d); got != "gone" {
			t.Errorf("%s: without finalizers it lives in %q", policy, got)
		}
		if left := h.tracker.Drain(t.Context()); left != 0 || h.lives(d) != "a a:v2" {
			t.Errorf("%s: %d left, it lives in %q", policy, left, h.lives(d))
		}
		if again, err := h.catalog.Get(t.Context(), d); err != nil || again.UID == former.UID {
			t.Errorf("%s: the Image is the former one, %v", policy, err)
		}
	}
}
