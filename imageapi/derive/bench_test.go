package derive_test

import (
	"testing"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BenchmarkImage parses the manifest and derives the Image of a two-layer image.
func BenchmarkImage(b *testing.B) {
	in := raw{
		MediaType: imagespec.MediaTypeImageManifest, Config: []byte(imageConfig),
		Manifest: []byte(manifestOf("", imagespec.MediaTypeImageConfig, imageConfig, layers(layer(layerA, 100, tarGzip), layer(layerB, 20, tarGzip)))),
	}
	for b.Loop() {
		if _, err := in.derive(); err != nil {
			b.Fatal(err)
		}
	}
}
