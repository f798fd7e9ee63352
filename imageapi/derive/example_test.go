package derive_test

import (
	"fmt"

	"tallyman/imageapi/derive"
	"tallyman/signatures/manifest"
)

// The Image of a pushed manifest is named by its digest. The config gives its metadata.
func ExampleImage() {
	config := []byte(`{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	content := []byte(`{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:04c343465ae76ae68bc20cba183c3cebbc6f2cee9a5009e83ebd1667a707f283",
    "size": 78
  },
  "layers": [{
    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
    "digest": "sha256:2222222222222222222222222222222222222222222222222222222222222222",
    "size": 1234
  }]
}`)
	parsed, err := manifest.Parse("", content)
	if err != nil {
		panic(err)
	}
	image, err := derive.Image(derive.Input{Manifest: parsed, Config: config, Reference: "localhost:5000/team/app"})
	if err != nil {
		panic(err)
	}
	fmt.Println(image.DockerImageManifestMediaType)
	fmt.Println(image.Annotations[derive.AnnotationPlatform])
	fmt.Println(len(image.DockerImageLayers), image.DockerImageLayers[0].LayerSize)
	// Output:
	// application/vnd.oci.image.manifest.v1+json
	// linux/arm64
	// 1 1234
}
