package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// pushIndex records an empty index with an annotation, and with a tag if there is one.
func (h *signingHouse) pushIndex(w *Catalog, repository, content, tag string, from ...digest.Digest) digest.Digest {
	h.t.Helper()
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"a":%q}}`, content)
	p := Push{Repository: repository, Digest: digest.FromString(body), Manifest: parse(h.t, body), Tag: tag, From: from}
	derived, err := w.Derive(p)
	if err == nil {
		err = w.Record(h.t.Context(), p, derived)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return p.Digest
}

// tagged returns which of the Images have the tag.
func (h *signingHouse) tagged(tag string, images map[string]digest.Digest) string {
	h.t.Helper()
	var names []string
	for name, d := range images {
		image, err := h.w.Get(h.t.Context(), d)
		if err != nil && !apierrors.IsNotFound(err) {
			h.t.Fatal(err)
		}
		if err == nil && slices.Contains(rules.Tags(image), tag) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

// TestMoveTag: a tag moves in one commit, the gain before the loss, with a push or without one.
func TestMoveTag(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	images := map[string]digest.Digest{"one": h.pushIndex(h.w, "app", "one", "v1")}
	missing := digest.FromString("missing")
	for _, step := range []struct {
		name     string
		change   func() error
		want     string
		changed  string // Images, in the order of the commit
		notFound bool
	}{
		{"a push of another", func() error {
			images["two"] = h.pushIndex(h.w, "app", "two", "v1", images["one"])
			return nil
		}, "two", "two,one", false},
		{"a move", func() error { return h.w.MoveTag(t.Context(), "app", "v1", images["one"], images["two"]) }, "one", "one,two", false},
		{"the same move again", func() error { return h.w.MoveTag(t.Context(), "app", "v1", images["one"], images["two"]) }, "one", "", false},
		{"a move to a manifest without an Image", func() error { return h.w.MoveTag(t.Context(), "app", "v1", missing, images["one"], "", missing) }, "", "one", true},
		{"a move from one", func() error { return h.w.MoveTag(t.Context(), "app", "v1", images["two"], missing) }, "two", "two", false},
		{"a move to one that the repository does not hold", func() error { return h.w.MoveTag(t.Context(), "other", "v1", images["two"]) }, "two", "", true},
		{"an untag", func() error { return h.w.MoveTag(t.Context(), "app", "v1", "", images["two"]) }, "", "two", false},
	} {
		before, err := h.w.Revision(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := step.change(); apierrors.IsNotFound(err) != step.notFound || err != nil && !step.notFound {
			t.Errorf("%s: %v", step.name, err)
		}
		changes, err := h.backend.Log(t.Context(), storage.LogRequest{After: before, NoWait: true})
		if err != nil {
			t.Fatal(err)
		}
		var changed []string
		commits := map[int64]bool{}
		for _, c := range changes {
			commits[c.Commit] = true
			for name, d := range images {
				if c.Key == rest.KeyPrefix+d.String() {
					changed = append(changed, name)
				}
			}
		}
		if got := strings.Join(changed, ","); got != step.changed || len(commits) > 1 || len(changed) != len(changes) {
			t.Errorf("%s changed %s in %d commits, want %s", step.name, got, len(commits), step.changed)
		}
		if got := h.tagged("app:v1", images); got != step.want {
			t.Errorf("%s: the tag is on %q, want %q", step.name, got, step.want)
		}
	}
}

// TestMoveTagAgain: a move is made anew when another write came first, of either Image.
func TestMoveTagAgain(t *testing.T) {
	for name, first := range map[string]func(h *signingHouse, one, two digest.Digest) error{
		"of the one that gains": func(h *signingHouse, _, two digest.Digest) error {
			return h.w.MoveTag(h.t.Context(), "app", "other", two)
		},
		"of the one that loses": func(h *signingHouse, one, _ digest.Digest) error {
			return h.w.MoveTag(h.t.Context(), "app", "other", one)
		},
		"of one that goes": func(h *signingHouse, one, _ digest.Digest) error { return h.w.Remove(h.t.Context(), "app", one) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newSigningHouse(t, SignatureOptions{})
			one, two := h.pushIndex(h.w, "app", "one", "v1"), h.pushIndex(h.w, "app", "two", "")
			store := &interrupted{Backend: h.backend}
			w, _ := open(t, store, SignatureOptions{})
			store.before = func() {
				if err := first(h, one, two); err != nil {
					t.Error(err)
				}
			}
			if err := w.MoveTag(t.Context(), "app", "v1", two, one); err != nil {
				t.Fatal(err)
			}
			images := map[string]digest.Digest{"one": one, "two": two}
			if got := h.tagged("app:v1", images); got != "two" {
				t.Errorf("the tag is on %q", got)
			}
			if got := h.tagged("app:other", images); strings.Contains(name, "gains") && got != "two" || strings.Contains(name, "loses") && got != "one" {
				t.Errorf("the other write is lost: its tag is on %q", got)
			}
		})
	}
}

// TestMoveTagFromCorrupt: an Image that cannot be read is deleted, and the tag moves.
func TestMoveTagFromCorrupt(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	one, two := h.pushIndex(h.w, "app", "one", "v1"), h.pushIndex(h.w, "app", "two", "")
	broken := storage.Mutation{Key: rest.KeyPrefix + one.String(), Expect: storage.AnyRevision, Value: storage.Body([]byte("{broken"))}
	if _, err := h.backend.Commit(t.Context(), broken); err != nil {
		t.Fatal(err)
	}
	if err := h.w.MoveTag(t.Context(), "app", "v1", two, one); err != nil {
		t.Fatal(err)
	}
	if got := h.tagged("app:v1", map[string]digest.Digest{"one": one, "two": two}); got != "two" {
		t.Errorf("the tag is on %q", got)
	}
	if _, err := h.w.Get(t.Context(), one); !apierrors.IsNotFound(err) {
		t.Errorf("the corrupt Image: %v", err)
	}
}
