package signatures_test

import (
	"fmt"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/signatures/manifest"
)

const signatureManifest = `{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111", "size": 2},
  "layers": [{
    "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
    "digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
    "size": 7,
    "annotations": {"dev.cosignproject.cosign/signature": "MEUCIQ=="}
  }]
}`

// Extract reads the blobs that hold the signatures.
func ExampleExtract() {
	m, err := manifest.Parse("", []byte(signatureManifest))
	if err != nil {
		panic(err)
	}
	found, err := signatures.Extract(m, signatures.Limits{}, func(imagespec.Descriptor) ([]byte, error) {
		return []byte("payload"), nil
	})
	if err != nil {
		panic(err)
	}
	for _, s := range found {
		fmt.Println(s.Type)
	}
	// Output: CosignSimpleSigningV1
}
