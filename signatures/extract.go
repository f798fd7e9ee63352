package signatures

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures/manifest"
)

// Limits of reading and keeping signatures.
const (
	// DefaultContentLimit is the default of Limits.Content: 256 KiB.
	DefaultContentLimit = 256 << 10
	// DefaultPerImage is the default of Limits.PerImage.
	DefaultPerImage = 64
	// DefaultVerifyLimit is the CPU time that the signatures of an image may take while its push waits:
	// enough for some hundred signatures by keys.
	DefaultVerifyLimit = 100 * time.Millisecond
	// DefaultVerifyPerMinute is that of all pushes to a repository in a minute.
	DefaultVerifyPerMinute = 2 * time.Second
	// MaxBlob is the size of the largest blob that is read.
	MaxBlob = 4 << 20
	// maxLayers is how many layers of one manifest are looked at, and maxTotal how
	// many bytes of them are kept; those of signatures that come after are not.
	maxLayers = 256
	maxTotal  = 1 << 20
)

// Limits bounds the signatures of an Image.
type Limits struct {
	// Content is how many bytes one signature may have to be kept.
	Content int64
	// PerImage is how many derived signatures an Image may have.
	PerImage int
}

// Annotations of a layer of a cosign signature manifest that belong to the
// signature (cosign specs/SIGNATURE_SPEC.md).
const (
	AnnotationCosignSignature   = "dev.cosignproject.cosign/signature"
	AnnotationCosignCertificate = "dev.sigstore.cosign/certificate"
	AnnotationCosignChain       = "dev.sigstore.cosign/chain"
	AnnotationCosignBundle      = "dev.sigstore.cosign/bundle"
	AnnotationCosignTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"
)

var cosignAnnotations = []string{
	AnnotationCosignSignature, AnnotationCosignCertificate, AnnotationCosignChain, AnnotationCosignBundle, AnnotationCosignTimestamp,
}

// ErrBlobMissing is the error of Extract's blob function for a blob that does not exist, or
// not yet.
var ErrBlobMissing = errors.New("the blob is not there")

// CosignContent is the content of a signature of TypeCosign, in the form that
// containers/image has for it (signature/internal/sigstore_payload.go).
type CosignContent struct {
	MIMEType    string            `json:"mimeType"`
	Payload     []byte            `json:"payload"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Extract returns the signatures that a manifest carries, in order; none for other manifests,
// such as attestations. blob reads a blob of at most MaxBlob bytes of the manifest's
// repository. A missing blob is passed over, and the first such error is returned beside the
// signatures; any other error ends the reading.
func Extract(m *manifest.Manifest, limits Limits, blob func(imagespec.Descriptor) ([]byte, error)) ([]Signature, error) {
	var found []Signature
	var missing error
	total := 0
	for i, layer := range m.Layers {
		if i == maxLayers {
			break
		}
		s, ok, err := extract(m.Kind, layer, limits, blob)
		switch {
		case errors.Is(err, ErrBlobMissing):
			missing = errors.Join(missing, err)
		case err != nil:
			return nil, err
		case ok:
			if total += len(s.Content); total > maxTotal {
				s = tooLarge(s.Type, layer)
			}
			found = append(found, s)
		}
	}
	return found, missing
}

// extract makes the signature of one layer; ok is false if it is none.
func extract(kind manifest.Kind, layer imagespec.Descriptor, limits Limits, blob func(imagespec.Descriptor) ([]byte, error)) (s Signature, ok bool, err error) {
	switch {
	case kind == manifest.Cosign && layer.MediaType == manifest.MediaTypeCosignLayer:
		s.Type = TypeCosign
	case kind == manifest.Bundle && manifest.IsBundle(layer.MediaType):
		s.Type = TypeBundle
	case kind == manifest.Notation && layer.MediaType == manifest.MediaTypeNotationJWS:
		s.Type = TypeNotaryJWS
	case kind == manifest.Notation && layer.MediaType == manifest.MediaTypeNotationCOSE:
		s.Type = TypeNotaryCOSE
	default:
		return s, false, nil
	}
	if layer.Size > MaxBlob {
		// Attestations may be that large, signatures are not.
		return tooLarge(s.Type, layer), s.Type != TypeBundle, nil
	}
	content, err := blob(layer)
	if err != nil {
		return s, false, fmt.Errorf("blob %s: %w", layer.Digest, err)
	}
	if s.Type == TypeBundle && isAttestation(content) {
		return s, false, nil
	}
	if s.Type == TypeCosign {
		if content, err = cosignContent(layer, content); err != nil {
			return s, false, err
		}
	}
	if s.Content = content; int64(len(content)) > limits.Content {
		s = tooLarge(s.Type, layer)
	}
	// An entry without content is not valid; the least that says nothing.
	if len(s.Content) == 0 {
		s.Content = []byte("\n")
	}
	return s, true, nil
}

func cosignContent(layer imagespec.Descriptor, payload []byte) ([]byte, error) {
	c := CosignContent{MIMEType: layer.MediaType, Payload: payload, Annotations: map[string]string{}}
	for _, key := range cosignAnnotations {
		if value, ok := layer.Annotations[key]; ok {
			c.Annotations[key] = value
		}
	}
	return json.Marshal(c)
}

// tooLarge stands for a signature that is not kept: where it is.
func tooLarge(signatureType string, layer imagespec.Descriptor) Signature {
	content, err := json.Marshal(imagespec.Descriptor{MediaType: layer.MediaType, Digest: layer.Digest, Size: layer.Size})
	if err != nil {
		content = []byte(layer.Digest) // a descriptor is always JSON
	}
	return Signature{Type: signatureType, Content: content}
}

// IsReference reports whether the content of a signature is the descriptor of a
// blob that is too large to be kept, and not the signature itself.
func IsReference(content []byte) bool {
	var d imagespec.Descriptor
	return json.Unmarshal(content, &d) == nil && d.Digest.Validate() == nil && d.Size > 0 && d.MediaType != ""
}
