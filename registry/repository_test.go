package registry

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/registry/tracker"
)

// putContent pushes a manifest by digest as it is.
func (h *house) putContent(repository, content string) (digest.Digest, error) {
	h.t.Helper()
	service, err := h.repository(h.namespace, repository).Manifests(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	m, _, err := distribution.UnmarshalManifest(imagespec.MediaTypeImageManifest, []byte(content))
	if err != nil {
		h.t.Fatal(err)
	}
	return service.Put(h.t.Context(), m)
}

// TestAmbiguousManifests: a manifest that clients may read differently is taken and marked, or
// refused with what is ambiguous, by the configuration. A cache takes what its upstream has.
func TestAmbiguousManifests(t *testing.T) {
	for name, test := range map[string]struct {
		options tracker.Options
		refused bool
	}{
		"accepted":   {tracker.Options{}, false},
		"refused":    {tracker.Options{RefuseAmbiguous: true}, true},
		"in a cache": {tracker.Options{RefuseAmbiguous: true, PullThrough: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouseWith(t, test.options, nil)
			config, err := h.repository(h.namespace, "a").Blobs(t.Context()).Put(t.Context(), imagespec.MediaTypeImageConfig, []byte("{}"))
			if err != nil {
				t.Fatal(err)
			}
			content := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"Layers":[]}`,
				imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageConfig, config.Digest)
			stored, err := h.putContent("a", content)
			if !test.refused {
				if image, getErr := h.catalog.Get(t.Context(), stored); err != nil || getErr != nil || image.Annotations["tallyman.dev/ambiguous"] != "layers" {
					t.Errorf("%v, %v, %+v", err, getErr, image)
				}
				return
			}
			var refusal errcode.Error
			if !errors.As(err, &refusal) || refusal.Code != errcode.ErrorCodeManifestInvalid || !strings.Contains(fmt.Sprint(refusal.Detail), "layers") {
				t.Errorf("the error is %v", err)
			}
			manifests, err := h.repository(h.plain, "a").Manifests(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if exists, err := manifests.Exists(t.Context(), digest.FromString(content)); exists || err != nil {
				t.Errorf("it is stored: %t, %v", exists, err)
			}
			h.mustPush("a", "v1", "an ordinary one")
		})
	}
}

// captureLog returns the log until the test ends.
func captureLog(t *testing.T) *bytes.Buffer {
	t.Helper()
	var log bytes.Buffer
	former := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(former) })
	return &log
}

// TestAuditOfPulls: a manifest that a pull-through cache has fetched was pulled.
func TestAuditOfPulls(t *testing.T) {
	for verb, options := range map[string]tracker.Options{"push": {}, "pull": {PullThrough: true}} {
		log := captureLog(t)
		newHouseWith(t, options, nil).mustPush("a", "v1", "somebody")
		if !strings.Contains(log.String(), `msg="registry audit" verb=`+verb+" ") {
			t.Errorf("%s: the log is %s", verb, log.String())
		}
	}
}
