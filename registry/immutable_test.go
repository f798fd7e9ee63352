package registry

import (
	"errors"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"tallyman/registry/tracker"
)

func TestTagRules(t *testing.T) {
	rules := tagRules{{Repositories: []string{"prod/*", "base"}, Tags: []string{"v*", "[0-9]"}, Immutable: true}, {Repositories: []string{"*"}, Tags: []string{"*"}}}
	for full, want := range map[string]bool{
		"prod/app:v1": true, "prod/app:7": true, "base:v1": true, "prod/app:latest": false, "prod/a/b:v1": false, "prod:v1": false, "dev/app:v1": false, "prod/app:77": false,
	} {
		repository, tag, _ := strings.Cut(full, ":")
		if got := rules.immutable(repository, tag) != nil; got != want {
			t.Errorf("%s: %v", full, got)
		}
	}
	for repository, want := range map[string]bool{"prod/app": true, "base": true, "dev/app": false} {
		if got := rules.concern(repository); got != want {
			t.Errorf("%s: %v", repository, got)
		}
	}
}

// TestImmutableTags: changes of such a tag are refused, and nothing of them is stored.
func TestImmutableTags(t *testing.T) {
	h := newHouse(t, tracker.Defer)
	h.namespace = namespace{Namespace: h.plain, tracker: h.tracker, rules: tagRules{{Repositories: []string{"prod"}, Tags: []string{"v*"}, Immutable: true}}}
	first := h.mustPush("prod", "v1", "one")
	h.mustPush("prod", "v1", "one") // the same again
	h.mustPush("prod", "latest", "one")
	h.mustPush("prod", "latest", "two")
	h.mustPush("dev", "v1", "one")
	h.mustPush("dev", "v1", "two")
	denied := func(what string, err error) {
		t.Helper()
		var refusal errcode.Error
		if !errors.As(err, &refusal) || refusal.Code != errcode.ErrorCodeDenied || !strings.Contains(refusal.Message, "tag v1 of prod is immutable") || !strings.Contains(refusal.Message, first.String()) {
			t.Errorf("%s: %v", what, err)
		}
	}
	third, err := h.push("prod", "v1", "three")
	denied("a push of another image", err)
	denied("an untag", h.repository(h.namespace, "prod").Tags(t.Context()).Untag(t.Context(), "v1"))
	denied("a deletion of the manifest", h.remove("prod", first))
	manifests, err := h.repository(h.plain, "prod").Manifests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if third != "" {
		if held, err := manifests.Exists(t.Context(), third); held || err != nil {
			t.Errorf("the refused manifest is stored: %v, %v", held, err)
		}
	}
	if got, err := h.repository(h.plain, "prod").Tags(t.Context()).Get(t.Context(), "v1"); err != nil || got.Digest != first {
		t.Errorf("the tag points to %s, %v", got.Digest, err)
	}
	if got := h.lives(first); !strings.Contains(got, "prod:v1") {
		t.Errorf("the Image is in %s", got)
	}
	if err := h.remove("dev", h.mustPush("dev", "v1", "two")); err != nil {
		t.Errorf("a repository without rules: %v", err)
	}
	h.store.down.Store(true)
	_, err = h.push("prod", "v2", "three")
	var refusal errcode.Error
	if !errors.As(err, &refusal) || refusal.Code != errcode.ErrorCodeUnavailable {
		t.Errorf("without the store: %v", err)
	}
	h.store.down.Store(false)
	h.mustPush("prod", "v2", "three")
}
