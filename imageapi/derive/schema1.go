package derive

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	imagev1 "github.com/openshift/api/image/v1"
)

// Docker schema 1 reaches the API only in posted Images; registries no longer
// take it. Format: distribution's former docs/spec/manifest-v2-1.md.

// deriveSchema1 fills image from a schema 1 manifest, whose layers are listed
// from the top down, with their metadata in v1 history entries.
func (m *manifest) deriveSchema1(image *imagev1.Image) error {
	if len(m.History) == 0 {
		return errors.New("not a schema 1 manifest: history: it is empty")
	}
	if len(m.History) != len(m.FSLayers) {
		return fmt.Errorf("not a schema 1 manifest: history: it has %d entries for %d layers", len(m.History), len(m.FSLayers))
	}
	image.Annotations[AnnotationLayersOrder] = imagev1.DockerImageLayersOrderAscending
	var sizes []int64
	seen := map[string]bool{}
	for i := len(m.FSLayers) - 1; i >= 0; i-- {
		name, size := m.FSLayers[i].BlobSum, max(parseConfig([]byte(m.History[i].V1Compatibility)).Size, 0)
		image.DockerImageLayers = append(image.DockerImageLayers, imagev1.ImageLayer{
			Name: name, LayerSize: size, MediaType: mediaTypeSchema1Layer,
		})
		if !seen[name] {
			seen[name] = true
			sizes = append(sizes, size)
		}
	}
	top := []byte(m.History[0].V1Compatibility)
	if !json.Valid(top) {
		return errors.New("not a schema 1 manifest: history[0].v1Compatibility: it is not JSON")
	}
	c := parseConfig(top)
	metadata := c.metadata()
	metadata.Size = sum(sizes...)
	annotate(image, AnnotationPlatform, c.platform().String())
	return setMetadata(image, metadata)
}

// schema1Payload returns the bytes that the digest of a schema 1 manifest covers: without the
// signatures, as the first signature's protected header says (JSON Web Signature in libtrust's
// pretty form), or all bytes if unsigned.
func schema1Payload(data []byte) []byte {
	var signed struct {
		Signatures []struct {
			Protected string `json:"protected"`
		} `json:"signatures"`
	}
	if json.Unmarshal(data, &signed) != nil || len(signed.Signatures) == 0 {
		return data
	}
	header, err := decodeJWS(signed.Signatures[0].Protected)
	if err != nil {
		return data
	}
	var format struct {
		Length int    `json:"formatLength"`
		Tail   string `json:"formatTail"`
	}
	if json.Unmarshal(header, &format) != nil || format.Length <= 0 || format.Length > len(data) {
		return data
	}
	tail, err := decodeJWS(format.Tail)
	if err != nil {
		return data
	}
	return append(bytes.Clone(data[:format.Length]), tail...)
}

// decodeJWS decodes base64url with or without padding.
func decodeJWS(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(string(bytes.TrimRight([]byte(s), "=")))
}
