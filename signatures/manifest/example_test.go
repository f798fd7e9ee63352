package manifest_test

import (
	"fmt"

	"tallyman/signatures/manifest"
)

// A signature by cosign has no Image of its own.
func ExampleParse() {
	m, err := manifest.Parse("", []byte(`{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111", "size": 2},
  "layers": [{
    "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
    "digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
    "size": 7
  }]
}`))
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Kind, m.HasImage())
	// Output: cosign false
}
