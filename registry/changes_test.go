package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/registry/storage"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/streamwriter"
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
			var e *streamwriter.RefusedError
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
		err := changes.Untag(t.Context(), streamwriter.Move{User: "alice", Repository: "prod", Tag: test.tag, Condition: test.condition})
		h.store.down.Store(false)
		if test.refused == nil && err != nil || test.refused != nil && !test.refused(err) {
			t.Errorf("%s: %T %v", name, err, err)
		}
		_, err = h.repository(h.plain, "prod").Tags(t.Context()).Get(t.Context(), "latest")
		var unknown distribution.ErrTagUnknown
		if gone := errors.As(err, &unknown); gone != (test.tag == "latest" && test.refused == nil) {
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

// TestTagForAPI: the API tags images within a repository and across repositories, with their content.
func TestTagForAPI(t *testing.T) {
	h := newHouse(t, tracker.Reject)
	one, two := h.mustPush("team/app", "v1", "one"), h.mustPush("team/app", "v2", "two")
	h.mustPush("prod/fixed", "v1", "another")
	content, err := manifestlist.FromDescriptors([]manifestlist.ManifestDescriptor{
		{Descriptor: imagespec.Descriptor{MediaType: imagespec.MediaTypeImageManifest, Digest: one, Size: 1}, Platform: manifestlist.PlatformSpec{OS: "linux", Architecture: "amd64"}},
		{Descriptor: imagespec.Descriptor{MediaType: imagespec.MediaTypeImageManifest, Digest: two, Size: 1}, Platform: manifestlist.PlatformSpec{OS: "linux", Architecture: "arm64"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	service, err := h.repository(h.namespace, "team/app").Manifests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := service.Put(t.Context(), content)
	if err != nil {
		t.Fatal(err)
	}
	changes := newChanges(&configuration.Configuration{Storage: configuration.Storage{}}, namespace{Namespace: h.plain, tracker: h.tracker, rules: tagRules{{Repositories: []string{"prod/fixed"}, Tags: []string{"*"}, Immutable: true}}})
	unknown := digest.FromString("unknown")
	for name, test := range map[string]struct {
		repository, from string
		to               digest.Digest
		lives            map[digest.Digest]string
		problem          func(error) bool
	}{
		"the same repository": {"team/app", "team/app", one, map[digest.Digest]string{one: "team/app[v1]"}, nil},
		"another repository":  {"prod/app", "team/app", one, map[digest.Digest]string{one: "prod/app[v9] team/app[v1]"}, nil},
		"a list":              {"prod/list", "team/app", list, map[digest.Digest]string{list: "prod/list[v9]", two: "prod/list"}, nil},
		"no such image here":  {"team/app", "team/app", unknown, nil, apierrors.IsNotFound},
		"no such image":       {"prod/none", "team/app", unknown, nil, apierrors.IsNotFound},
		"an immutable tag": {"prod/fixed", "team/app", one, nil, func(err error) bool {
			var e *streamwriter.RefusedError
			return errors.As(err, &e) && strings.Contains(e.Reason, "immutable")
		}},
	} {
		tag := "v9"
		if name == "an immutable tag" {
			tag = "v1"
		}
		err := changes.Tag(t.Context(), streamwriter.Move{User: "alice", Repository: test.repository, Tag: tag, From: test.from, To: test.to, Condition: func(context.Context) error { return nil }})
		if test.problem == nil && err != nil || test.problem != nil && !test.problem(err) {
			t.Errorf("%s: %T %v", name, err, err)
			continue
		}
		at, err := h.repository(h.plain, test.repository).Tags(t.Context()).Get(t.Context(), tag)
		if moved := err == nil && at.Digest == test.to; moved != (test.problem == nil) {
			t.Errorf("%s: afterwards %v, %v", name, at, err)
		}
		for name := range test.lives {
			if got := h.lives(name); !strings.Contains(got, test.repository) {
				t.Errorf("%s: its Image is in %s", name, got)
			}
			manifests, err := h.repository(h.plain, test.repository).Manifests(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			stored, err := manifests.Get(t.Context(), name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for _, part := range stored.References() {
				if isList(stored) {
					_, err = manifests.Get(t.Context(), part.Digest)
				} else {
					_, err = h.repository(h.plain, test.repository).Blobs(t.Context()).Stat(t.Context(), part.Digest)
				}
				if err != nil {
					t.Errorf("%s of %s: %v", part.Digest, name, err)
				}
			}
		}
	}
}

// TestTrackingTags: a tag follows the one that it tracks, also in a chain, and no other one does. A failure
// does not fail the push.
func TestTrackingTags(t *testing.T) {
	h := newHouse(t, tracker.Reject)
	kept := h.catalog.Records()
	h.mustPush("team/app", "2.0", "one")
	h.mustPush("team/app", "other", "one")
	h.mustPush("team/other", "2.0", "one")
	name := streams.Stream{Namespace: "team", Name: "app"}
	state, err := kept.ReadStream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(tag, kind, namespace, source string) records.TagEdit {
		return records.TagEdit{Tag: tag, Spec: &imagev1.TagReference{Name: tag, From: &corev1.ObjectReference{Kind: kind, Namespace: namespace, Name: source}}}
	}
	edits := []records.TagEdit{
		edit("stable", streams.KindImageStreamTag, "", "app:2.0"), edit("latest", streams.KindImageStreamTag, "team", "stable"),
		edit("image", streams.KindImageStreamImage, "", "2.0"), edit("elsewhere", streams.KindImageStreamTag, "other", "app:2.0"),
		edit("sibling", streams.KindImageStreamTag, "", "other:2.0"), {Tag: "none", Spec: &imagev1.TagReference{Name: "none"}},
		edit("circle", streams.KindImageStreamTag, "", "latest"), edit("2.0", streams.KindImageStreamTag, "", "circle"),
	}
	if held, err := kept.ReadStream(t.Context(), name, "2.0"); err != nil {
		t.Fatal(err)
	} else {
		state.Tags = held.Tags
	}
	var specs []imagev1.TagReference
	for i := range edits {
		specs = append(specs, *edits[i].Spec)
	}
	records.MarkTracking(state.Stream, specs)
	commit, err := kept.EditStream(state, state.Stream, edits)
	if err != nil {
		t.Fatal(err)
	}
	if result, err := h.store.Commit(t.Context(), commit...); err != nil || !result.Succeeded {
		t.Fatal(result, err)
	}
	two := h.mustPush("team/app", "2.0", "two")
	for tag, want := range map[string]bool{"2.0": true, "stable": true, "latest": true, "circle": true, "image": false, "elsewhere": false, "sibling": false, "none": false, "other": false} {
		at, err := h.repository(h.plain, "team/app").Tags(t.Context()).Get(t.Context(), tag)
		if got := err == nil && at.Digest == two; got != want {
			t.Errorf("%s: %v, %v", tag, at, err)
		}
		if to, _, err := kept.Tag(t.Context(), "team/app", tag); err != nil || (to == two) != want {
			t.Errorf("%s: the record says %s, %v", tag, to, err)
		}
	}
}

// parcel is content from elsewhere.
type parcel struct {
	manifests map[digest.Digest]string
	blobs     map[digest.Digest]string
}

// Manifest implements streamwriter.Content.
func (p *parcel) Manifest(_ context.Context, name digest.Digest) (mediaType string, content []byte, err error) {
	if p.manifests[name] == "" {
		return "", nil, errors.New("no such manifest")
	}
	return imagespec.MediaTypeImageManifest, []byte(p.manifests[name]), nil
}

// Blob implements streamwriter.Content.
func (p *parcel) Blob(_ context.Context, blob imagespec.Descriptor) (io.ReadCloser, error) {
	if p.blobs[blob.Digest] == "" {
		return nil, errors.New("no such blob")
	}
	return io.NopCloser(strings.NewReader(p.blobs[blob.Digest])), nil
}

// TestAddForAPI: content from elsewhere is added as a whole, or is not there and the error says which part is
// missing.
func TestAddForAPI(t *testing.T) {
	config, layer := `{"os":"linux"}`, "layer"
	content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageConfig, digest.FromString(config), len(config), imagespec.MediaTypeImageLayer, digest.FromString(layer), len(layer))
	name := digest.FromString(content)
	for label, test := range map[string]struct {
		layer, problem string
	}{
		"whole": {layer, ""}, "a layer is missing": {"", "no such blob"}, "another layer": {"other", "does not match"},
	} {
		h := newHouse(t, tracker.Reject)
		changes := newChanges(&configuration.Configuration{Storage: configuration.Storage{}}, namespace{Namespace: h.plain, tracker: h.tracker})
		from := &parcel{map[digest.Digest]string{name: content}, map[digest.Digest]string{digest.FromString(config): config, digest.FromString(layer): test.layer}}
		for range 2 {
			err := changes.Add(t.Context(), "alice", "team/app", name, from)
			if test.problem == "" && err != nil || test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)) {
				t.Errorf("%s: %v", label, err)
			}
		}
		if got := h.lives(name); (got == "team/app") != (test.problem == "") {
			t.Errorf("%s: its Image is in %s", label, got)
		}
		_, err := h.repository(h.plain, "team/app").Blobs(t.Context()).Stat(t.Context(), digest.FromString(layer))
		if (err == nil) != (test.problem == "") {
			t.Errorf("%s: the layer: %v", label, err)
		}
		missing := changes.Add(t.Context(), "alice", "team/app", digest.FromString("x"), from)
		if missing == nil || !strings.Contains(missing.Error(), "no such manifest") {
			t.Errorf("%s: of no manifest: %v", label, missing)
		}
	}
}
