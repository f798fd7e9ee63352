// Package imagetest has an image, its manifest and its config, for tests.
package imagetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// Config is the config of an image.
	Config = `{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","config":{"User":"me"}}`
	// Layer is the digest of its layer.
	Layer = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	// PullSpec is a reference to it.
	PullSpec = "quay.io/team/app@" + Layer
)

var (
	// ConfigDigest is the digest of Config.
	ConfigDigest = digest.FromString(Config).String()
	// Manifest is the manifest of an image with Config and Layer.
	Manifest = fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":`+
		`"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":10}]}`,
		ConfigDigest, len(Config), Layer)
	// ManifestDigest is the digest of Manifest.
	ManifestDigest = digest.FromString(Manifest).String()
	// Index is the manifest of an index.
	Index = fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":5}]}`, Layer)
)

// Image returns an Image with a reference alone, after change, if it is not nil.
func Image(name string, change func(*imagev1.Image)) *imagev1.Image {
	image := &imagev1.Image{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0))}, DockerImageReference: PullSpec}
	if change != nil {
		change(image)
	}
	return image
}

// Signature returns a valid ImageSignature, after change, if it is not nil.
func Signature(name string, change func(*imagev1.ImageSignature)) imagev1.ImageSignature {
	s := imagev1.ImageSignature{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: "atomic", Content: []byte("x")}
	if change != nil {
		change(&s)
	}
	return s
}

// Places returns the repositories and tags of an Image as its annotations have them, "gone" for a
// NotFound of its reading. Other errors fail the test.
func Places(t testing.TB, image *imagev1.Image, err error) string {
	t.Helper()
	if apierrors.IsNotFound(err) {
		return "gone"
	}
	if err != nil {
		t.Fatal(err)
	}
	places := image.Annotations["tallyman.dev/repositories"] + "," + image.Annotations["tallyman.dev/tags"]
	return strings.Join(strings.FieldsFunc(places, func(r rune) bool { return r == ',' }), " ")
}
