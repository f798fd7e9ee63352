package tracker

import (
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
)

// TestKinds: the log names the kind of a push.
func TestKinds(t *testing.T) {
	image := &imagev1.Image{DockerImageManifestMediaType: "a/b"}
	if got := kindOf(image); got != "a/b" {
		t.Error(got)
	}
	image.Annotations = map[string]string{"tallyman.dev/artifact-type": "c/d"}
	if got := kindOf(image); got != "c/d" {
		t.Error(got)
	}
}
