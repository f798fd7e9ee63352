package registry

import (
	"testing"

	"tallyman/registry/tracker"
)

// TestDeletionOfTags: the tags of a deleted manifest go with it, and the request that deletes them from
// the registry afterwards records only those that have moved meanwhile.
func TestDeletionOfTags(t *testing.T) {
	for name, moved := range map[string]bool{"as they were": false, "one has moved": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, tracker.Reject)
			one := h.mustPush("a", "v1", "one")
			h.mustPush("a", "v2", "one")
			other := h.mustPush("a", "other", "other")
			tags := []string{"v1", "v2"} // noted before
			if moved {
				h.mustPush("a", "v2", "other")
			}
			request := &tracker.Request{}
			ctx := tracker.WithRequest(t.Context(), request)
			service, err := h.repository(h.plain, "a").Manifests(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.tracker.Deleted(ctx, "a", service, one, tags); err != nil {
				t.Fatal(err)
			}
			commits := h.store.commits.Load()
			for _, tag := range tags {
				if err := h.repository(h.namespace, "a").Tags(ctx).Untag(ctx, tag); err != nil {
					t.Error(err)
				}
			}
			if later := h.store.commits.Load() - commits; later > 0 != moved {
				t.Errorf("the end of the tags took %d more commits", later)
			}
			if err := request.End(ctx); err != nil {
				t.Error(err)
			}
			for _, tag := range tags {
				_, known, err := h.catalog.Records().Tag(t.Context(), "a", tag)
				if _, inRegistry := h.repository(h.plain, "a").Tags(ctx).Get(ctx, tag); known || err != nil || inRegistry == nil {
					t.Errorf("%s is recorded: %t, %v; in the registry: %v", tag, known, err, inRegistry)
				}
			}
			if got := h.lives(other); got != "a a:other" {
				t.Errorf("the other image lives in %s", got)
			}
			// The locks are free.
			if h.mustPush("a", "v1", "one") != one {
				t.Error("another image was pushed")
			}
		})
	}
}
