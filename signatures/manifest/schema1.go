package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"

	"github.com/opencontainers/go-digest"
)

// Digest returns the manifest's digest. That of a signed schema 1 manifest covers its content
// without the signatures
// (https://github.com/distribution/distribution/blob/v2.8.3/docs/spec/manifest-v2-1.md).
func (m *Manifest) Digest(algorithm digest.Algorithm) digest.Digest {
	if m.MediaType == MediaTypeSchema1 {
		return algorithm.FromBytes(schema1Payload(m.Content))
	}
	return algorithm.FromBytes(m.Content)
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
