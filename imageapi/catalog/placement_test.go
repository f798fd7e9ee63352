package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/endpoints/request"

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
		{"a move", func() error {
			return h.w.MoveTag(t.Context(), Move{Repository: "app", Tag: "v1", To: images["one"], From: []digest.Digest{images["two"]}})
		}, "one", "one,two", false},
		{"the same move again", func() error {
			return h.w.MoveTag(t.Context(), Move{Repository: "app", Tag: "v1", To: images["one"], From: []digest.Digest{images["two"]}})
		}, "one", "", false},
		{"a move to a manifest without an Image", func() error {
			return h.w.MoveTag(t.Context(), Move{Repository: "app", Tag: "v1", To: missing, From: []digest.Digest{images["one"], "", missing}})
		}, "", "one", true},
		{"a move from one", func() error {
			return h.w.MoveTag(t.Context(), Move{Repository: "app", Tag: "v1", To: images["two"], From: []digest.Digest{missing}})
		}, "two", "two", false},
		{"a move to one that the repository does not hold", func() error { return h.w.MoveTag(t.Context(), Move{Repository: "other", Tag: "v1", To: images["two"]}) }, "two", "", true},
		{"an untag", func() error {
			return h.w.MoveTag(t.Context(), Move{Repository: "app", Tag: "v1", To: "", From: []digest.Digest{images["two"]}})
		}, "", "two", false},
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
			if !strings.HasPrefix(c.Key, rest.KeyPrefix) {
				continue // a record
			}
			for name, d := range images {
				if c.Key == rest.KeyPrefix+d.String() {
					changed = append(changed, name)
				}
			}
		}
		if got := strings.Join(changed, ","); got != step.changed || len(commits) > 1 {
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
			return h.w.MoveTag(h.t.Context(), Move{Repository: "app", Tag: "other", To: two})
		},
		"of the one that loses": func(h *signingHouse, one, _ digest.Digest) error {
			return h.w.MoveTag(h.t.Context(), Move{Repository: "app", Tag: "other", To: one})
		},
		"of one that goes": func(h *signingHouse, one, _ digest.Digest) error {
			_, err := h.w.Remove(h.t.Context(), "app", one)
			return err
		},
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
			if err := w.MoveTag(t.Context(), Move{Repository: "app", Tag: "v1", To: two, From: []digest.Digest{one}}); err != nil {
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
	if err := h.w.MoveTag(t.Context(), Move{Repository: "app", Tag: "v1", To: two, From: []digest.Digest{one}}); err != nil {
		t.Fatal(err)
	}
	if got := h.tagged("app:v1", map[string]digest.Digest{"one": one, "two": two}); got != "two" {
		t.Errorf("the tag is on %q", got)
	}
	if _, err := h.w.Get(t.Context(), one); !apierrors.IsNotFound(err) {
		t.Errorf("the corrupt Image: %v", err)
	}
}

// TestRemove: a manifest leaves a repository with all its tags, some at a time, and the Image with
// the last repository.
func TestRemove(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	tags := 2*TagsAtOnce + 5
	var name digest.Digest
	for _, repository := range []string{"app", "other"} {
		for n := range tags {
			name = h.pushIndex(h.w, repository, "one", fmt.Sprint("v", n))
		}
	}
	for _, step := range []struct{ repository, left string }{{"app", "other"}, {"none", "other"}, {"other", ""}, {"other", ""}} {
		before, err := h.w.Revision(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.w.Remove(t.Context(), step.repository, name); err != nil {
			t.Fatal(step.repository, err)
		}
		if left, err := h.w.Records().TagsOf(t.Context(), step.repository, name, 1); err != nil || len(left) > 0 {
			t.Errorf("%s has tags such as %v, %v", step.repository, left, err)
		}
		image, err := h.w.Get(t.Context(), name)
		if step.left == "" && !apierrors.IsNotFound(err) || step.left != "" && (err != nil || strings.Join(rules.Repositories(image), " ") != step.left || len(rules.Tags(image)) != tags) {
			t.Errorf("without %s: %+v, %v", step.repository, image, err)
		}
		changes, err := h.backend.Log(t.Context(), storage.LogRequest{After: before, NoWait: true, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		commits := map[int64]bool{}
		for _, c := range changes {
			commits[c.Commit] = true
		}
		if n := len(commits); n > 3 {
			t.Errorf("without %s: %d commits", step.repository, n)
		}
	}
}

// finds wants the Image to be in the lists by some selectors, and not in those by others.
func (h *signingHouse) finds(name digest.Digest, selectors map[string]bool) {
	h.t.Helper()
	if h.indexing == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h.indexing = cancel
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.images.MaintainIndex(ctx)
		}()
		h.t.Cleanup(func() {
			cancel()
			<-done
		})
		for !h.images.IndexProgress().Complete {
			time.Sleep(10 * time.Millisecond)
		}
	}
	for text, want := range selectors {
		field, value, _ := strings.Cut(text, "=")
		label, is, err := rules.ConvertFieldLabel(field, value)
		if err != nil {
			h.t.Fatal(err)
		}
		list, err := h.images.List(request.WithNamespace(h.t.Context(), ""), &internalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector(label, is)})
		if err != nil {
			h.t.Fatal(err)
		}
		items := list.(*imagev1.ImageList).Items
		if got := slices.ContainsFunc(items, func(i imagev1.Image) bool { return i.Name == name.String() }); got != want {
			h.t.Errorf("%.60s finds it: %v", text, got)
		}
	}
}

// TestHolders: holdings decide, not the list on the Image, which may lack some.
func TestHolders(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	name := h.pushIndex(h.w, "app", "one", "v1")
	var all []string
	for n := range 5 * 100 {
		repository := fmt.Sprintf("team%03d/%s", n, strings.Repeat("x", 200))
		h.pushIndex(h.w, repository, "one", "")
		all = append(all, repository)
	}
	image, err := h.w.Get(t.Context(), name)
	if err != nil || image.Annotations[rules.AnnotationTruncated] != "true" || slices.Contains(rules.Repositories(image), all[499]) {
		t.Fatalf("the list of repositories is complete, %v", err)
	}
	if err := h.w.MoveTag(t.Context(), Move{Repository: all[499], Tag: "v1", To: name}); err != nil {
		t.Errorf("a tag of a repository that does not show: %v", err)
	}
	h.finds(name, map[string]bool{
		"repository=app": true, "repository=" + all[499]: true, "tag=" + all[499] + ":v1": true, "tag=v1": true,
		"repository=none": false, "tag=" + all[498] + ":v1": false,
	})
	if err := h.w.MoveTag(t.Context(), Move{Repository: all[499], Tag: "v1"}); err != nil {
		t.Fatal(err)
	}
	h.pushIndex(h.w, all[499], "one", "v2")
	h.finds(name, map[string]bool{"tag=" + all[499] + ":v2": true})
	h.finds(name, map[string]bool{"tag=" + all[499] + ":v1": false, "tag=v1": true, "repository=" + all[499]: true})
	h.pushIndex(h.w, "one-more/"+strings.Repeat("x", 200), "one", "")
	if after, err := h.w.Get(t.Context(), name); err != nil || after.ResourceVersion == image.ResourceVersion {
		t.Errorf("a holding that does not show has not written the Image, so that a deletion could overtake it: %v", err)
	}
	for _, repository := range append([]string{"app", "one-more/" + strings.Repeat("x", 200)}, all[:499]...) {
		if _, err := h.w.Remove(t.Context(), repository, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.w.Get(t.Context(), name); err != nil {
		t.Fatalf("one repository holds it still: %v", err)
	}
	h.finds(name, map[string]bool{"repository=app": false, "tag=v1": false, "repository=" + all[498]: false, "repository=" + all[499]: true})
	if _, err := h.w.Remove(t.Context(), all[499], name); err != nil {
		t.Fatal(err)
	}
	if _, err := h.w.Get(t.Context(), name); !apierrors.IsNotFound(err) {
		t.Errorf("nobody holds it: %v", err)
	}
}

// TestCopiedTerms: an Image that was copied from another store, with the terms of its annotations alone,
// is found by a tag that does not show once that is recorded again.
func TestCopiedTerms(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	var name digest.Digest
	for n := range 500 {
		name = h.pushIndex(h.w, fmt.Sprintf("team%03d/%s", n, strings.Repeat("x", 200)), "one", "v1")
	}
	hidden := fmt.Sprintf("team%03d/%s", 499, strings.Repeat("x", 200))
	found := func() bool {
		t.Helper()
		found, err := h.w.Finds(t.Context(), hidden, "v1", name)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if !found() {
		t.Fatal("it is not found after the push")
	}
	entry, _, err := storage.GetEntry(t.Context(), h.backend, rest.Key(name), storage.Read{})
	if err != nil {
		t.Fatal(err)
	}
	terms, err := rest.StoredTerms(entry.Key, entry.Value.Body())
	if err == nil {
		_, err = h.backend.Commit(t.Context(), storage.Mutation{Operation: storage.Delete, Key: entry.Key, Expect: entry.Revision})
	}
	if err == nil {
		_, err = h.backend.Commit(t.Context(), storage.Mutation{Key: entry.Key, Value: storage.Body(entry.Value.Body()), Terms: terms})
	}
	if err != nil || found() {
		t.Fatalf("the copy has all terms, %v", err)
	}
	for _, again := range []func() error{
		func() error { return h.w.MoveTag(t.Context(), Move{Repository: hidden, Tag: "v1", To: name}) },
		func() error { h.pushIndex(h.w, hidden, "one", ""); return nil },
	} {
		if err := again(); err != nil {
			t.Fatal(err)
		}
	}
	if !found() {
		t.Error("it is not found after it was recorded again")
	}
	if held, err := h.w.Finds(t.Context(), hidden, "", name); err != nil || !held {
		t.Errorf("it is not found by its repository: %v", err)
	}
}

// TestHeldMeanwhile: a repository that takes a manifest while the last one leaves it keeps the Image.
func TestHeldMeanwhile(t *testing.T) {
	h := newSigningHouse(t, SignatureOptions{})
	name := h.pushIndex(h.w, "app", "one", "v1")
	store := &interrupted{Backend: h.backend}
	w, _ := open(t, store, SignatureOptions{})
	store.before = func() { h.pushIndex(h.w, "other", "one", "") }
	if _, err := w.Remove(t.Context(), "app", name); err != nil {
		t.Fatal(err)
	}
	image, err := h.w.Get(t.Context(), name)
	if err != nil || strings.Join(rules.Repositories(image), " ") != "other" {
		t.Errorf("%+v, %v", image, err)
	}
}
