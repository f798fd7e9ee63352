package registry

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/storage"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tallyman/imageapi/streamrest"
	"tallyman/registry/tracker"
)

// TestUntagForAPI: an untag for the API goes the way of the registry's own clients: rules hold, and it is
// recorded.
func TestUntagForAPI(t *testing.T) {
	changed := func(context.Context) error {
		return apierrors.NewConflict(schema.GroupResource{}, "app:latest", errors.New("it has changed"))
	}
	unconditional := func(context.Context) error { return nil }
	refused := func(reason string) func(error) bool {
		return func(err error) bool {
			var e *streamrest.RefusedError
			return errors.As(err, &e) && strings.Contains(e.Reason, reason)
		}
	}
	for name, test := range map[string]struct {
		tag       string
		configure func(c *configuration.Configuration)
		condition func(context.Context) error
		down      bool
		refused   func(error) bool // nil for a success
	}{
		"a tag":                   {"latest", nil, unconditional, false, nil},
		"one that is not there":   {"none", nil, unconditional, false, nil},
		"one that is immutable":   {"v1", nil, unconditional, false, refused("tag v1 of prod is immutable")},
		"one that has changed":    {"latest", nil, changed, false, apierrors.IsConflict},
		"of a cache":              {"latest", func(c *configuration.Configuration) { c.Proxy.RemoteURL = "https://example.com" }, unconditional, false, refused("pull-through")},
		"of a read-only one":      {"latest", readOnly, unconditional, false, refused("read-only")},
		"without the store":       {"latest", nil, unconditional, true, apierrors.IsServiceUnavailable},
		"where deletions are off": {"latest", nil, unconditional, false, refused("storage.delete.enabled")},
	} {
		h := newHouse(t, tracker.Reject)
		digest := h.mustPush("prod", "latest", "one")
		h.mustPush("prod", "v1", "one")
		inner := h.plain
		if strings.Contains(name, "off") {
			var err error
			if inner, err = storage.NewRegistry(t.Context(), h.driver); err != nil {
				t.Fatal(err)
			}
		}
		c := &configuration.Configuration{Storage: configuration.Storage{}}
		if test.configure != nil {
			test.configure(c)
		}
		changes := newChanges(c, namespace{Namespace: inner, tracker: h.tracker, rules: tagRules{{Repositories: []string{"prod"}, Tags: []string{"v*"}, Immutable: true}}})
		h.store.down.Store(test.down)
		err := changes.Untag(t.Context(), "alice", "prod", test.tag, test.condition)
		h.store.down.Store(false)
		if test.refused == nil && err != nil || test.refused != nil && !test.refused(err) {
			t.Errorf("%s: %T %v", name, err, err)
		}
		_, err = h.repository(h.plain, "prod").Tags(t.Context()).Get(t.Context(), "latest")
		var unknown distribution.ErrTagUnknown
		if gone := errors.As(err, &unknown); gone != (test.tag == "latest" && (test.refused == nil || test.down)) {
			t.Errorf("%s: afterwards %v", name, err)
		}
		if got := h.lives(digest); test.refused == nil && strings.Contains(got, "prod:latest") != (test.tag != "latest") {
			t.Errorf("%s: the Image is in %s", name, got)
		}
	}
}

func readOnly(c *configuration.Configuration) {
	c.Storage["maintenance"] = configuration.Parameters{"readonly": map[any]any{"enabled": true}}
}
