package registry

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/registry/resync"
	"tallyman/registry/tracker"
)

// underway returns the number of repositories that the store notes as being changed.
func (h *house) underway() (n int) {
	h.t.Helper()
	all, err := h.catalog.Records().Underway(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, repositories := range all {
		n += len(repositories)
	}
	return n
}

func (h *house) await(what string, ok func() bool) {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.t.Fatal("not yet: " + what)
		}
	}
}

// awaitRecovery waits until the note of the process called dead is gone.
func (h *house) awaitRecovery() {
	h.t.Helper()
	h.await("the note of the dead process is gone", func() bool {
		all, err := h.catalog.Records().Underway(h.t.Context())
		return err == nil && all["dead"] == nil
	})
}

// TestRecovery: changes of the registry by a process that died are recorded, in both directions.
func TestRecovery(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	untagged, deleted, moved, to := h.mustPush("a", "untagged", "1"), h.mustPush("a", "deleted", "2"), h.mustPush("a", "moved", "3"), h.mustPush("a", "to", "4")
	other := h.mustPush("other", "untagged", "5")
	for _, name := range []string{"a", "other"} {
		repo := h.repository(h.plain, name) // the middleware does not see it
		if err := repo.Tags(t.Context()).Untag(t.Context(), "untagged"); err != nil {
			t.Fatal(err)
		}
	}
	repo := h.repository(h.plain, "a")
	manifests, err := repo.Manifests(t.Context())
	if err == nil {
		err = manifests.Delete(t.Context(), deleted)
	}
	if err == nil {
		err = repo.Tags(t.Context()).Untag(t.Context(), "deleted")
	}
	for _, tag := range []string{"moved", "new"} {
		if err == nil {
			err = repo.Tags(t.Context()).Tag(t.Context(), tag, imagespec.Descriptor{Digest: to})
		}
	}
	if err == nil {
		err = h.catalog.Records().Begin(t.Context(), "dead", "a")
	}
	if err != nil {
		t.Fatal(err)
	}
	h.run(resync.Options{})
	for d, want := range map[digest.Digest]string{untagged: "a", deleted: "gone", moved: "a", to: "a a:moved a:new a:to"} {
		h.await(want, func() bool { return h.lives(d) == want })
	}
	h.awaitRecovery()
	if got := h.lives(other); got != "other other:untagged" {
		t.Errorf("a repository that nobody was changing was looked at: %s", got)
	}
	for tag, want := range map[string]digest.Digest{"untagged": "", "deleted": "", "moved": to, "new": to} {
		if got, known, err := h.catalog.Records().Tag(t.Context(), "a", tag); got != want || known != (want != "") || err != nil {
			t.Errorf("%s: %s, %v, %v", tag, got, known, err)
		}
	}
}

// TestUnderway: a change is noted before it is made, and the note goes when the process ends.
func TestUnderway(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	if n := h.underway(); n != 0 {
		t.Errorf("%d at first", n)
	}
	h.mustPush("a", "v1", "1")
	h.mustPush("b", "v1", "1")
	if n := h.underway(); n != 2 {
		t.Errorf("%d repositories were changed a moment ago", n)
	}
	h.run(resync.Options{})()
	if n := h.underway(); n != 0 {
		t.Errorf("%d after the end", n)
	}
}

// TestLostStorage: a registry that lacks most of a repository is not believed.
func TestLostStorage(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	d := h.mustPush("a", "v0", "1")
	for n := range 60 {
		if err := h.repository(h.namespace, "a").Tags(t.Context()).Tag(t.Context(), fmt.Sprint("v", n), imagespec.Descriptor{Digest: d}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.driver.Delete(t.Context(), "/docker/registry/v2/repositories/a"); err != nil {
		t.Fatal(err)
	}
	if err := h.catalog.Records().Begin(t.Context(), "dead", "a"); err != nil {
		t.Fatal(err)
	}
	h.run(resync.Options{})
	h.awaitRecovery()
	if tags, _, err := h.catalog.Records().TagNames(t.Context(), "a", -1, ""); len(tags) != 60 || err != nil || h.lives(d) == "gone" {
		t.Errorf("%d tags are left, %v", len(tags), err)
	}
}

// TestStoreWentBack: a store that has gone back to an earlier state has records of tags and manifests
// that are gone. They go, unless the registry lists nothing.
func TestStoreWentBack(t *testing.T) {
	for name, test := range map[string]struct {
		lose func(h *house) error
		want map[string]string // where the images of the repositories are
	}{
		"some is gone": {func(h *house) error {
			return errors.Join(h.repository(h.plain, "a").Tags(h.t.Context()).Untag(h.t.Context(), "v1"), h.driver.Delete(h.t.Context(), "/docker/registry/v2/repositories/b"))
		}, map[string]string{"a": "a", "b": "gone", "c": "c c:v1"}},
		"all is gone": {func(h *house) error { return h.driver.Delete(h.t.Context(), "/docker/registry/v2/repositories") },
			map[string]string{"a": "a a:v1", "b": "b b:v1", "c": "c c:v1"}},
	} {
		t.Run(name, func(t *testing.T) {
			lost := make(chan struct{}, 1)
			h := newHouse(t, tracker.Defer)
			images := map[string]digest.Digest{}
			for repository := range test.want {
				images[repository] = h.mustPush(repository, "v1", repository)
			}
			if err := test.lose(h); err != nil {
				t.Fatal(err)
			}
			lost <- struct{}{}
			h.run(resync.Options{Lost: lost})
			h.await("the resync is complete", func() bool {
				request, state, err := h.catalog.Records().Resyncs().State(t.Context())
				return err == nil && request.Grace != nil && state.Handled == request.Revision && !state.Finished.IsZero()
			})
			for repository, want := range test.want {
				if got := h.lives(images[repository]); got != want {
					t.Errorf("%s is in %q, want %q", repository, got, want)
				}
			}
		})
	}
}
