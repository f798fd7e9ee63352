package manifest

import "strings"

// Media types of signatures and attestations. Sources: cosign's specs/SIGNATURE_SPEC.md
// (https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md), the sigstore bundle
// (https://docs.sigstore.dev/about/bundle/), notation's signatures
// (https://github.com/notaryproject/specifications/blob/main/specs/signature-specification.md)
// and BuildKit's attestations
// (https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md).
const (
	MediaTypeCosignLayer  = "application/vnd.dev.cosign.simplesigning.v1+json"
	MediaTypeNotationJWS  = "application/jose+json"
	MediaTypeNotationCOSE = "application/cose"

	mediaTypeCosignArtifact = "application/vnd.dev.cosign.artifact.sig.v1+json"
	mediaTypeCosignAttested = "application/vnd.dev.cosign.artifact.att.v1+json"
	mediaTypeNotation       = "application/vnd.cncf.notary.signature"
	mediaTypeBundleBase     = "application/vnd.dev.sigstore.bundle"
	mediaTypeEnvelope       = "application/vnd.dsse.envelope.v1+json"
	mediaTypeStatement      = "application/vnd.in-toto+json"
)

// Kind is what a manifest is.
type Kind string

// The kinds.
const (
	// Image is a container image.
	Image Kind = "image"
	// Index is a list of manifests.
	Index Kind = "index"
	// Artifact has content of another type than a container image's, such as a Helm chart.
	Artifact Kind = "artifact"
	// Cosign has signatures of cosign's classic form, under a tag or with a subject.
	Cosign Kind = "cosign"
	// Bundle has a sigstore bundle: a signature, or an attestation. It has a subject.
	Bundle Kind = "bundle"
	// Notation has a notation envelope. It has a subject.
	Notation Kind = "notation"
	// Attestation has statements about an image that are no signatures.
	Attestation Kind = "attestation"
)

// HasImage reports whether the manifest gets an Image of its own: signatures and attestations
// do not.
func (m *Manifest) HasImage() bool {
	return m.Kind == Image || m.Kind == Index || m.Kind == Artifact
}

func (m *Manifest) kind() Kind {
	switch {
	case m.IsIndex():
		return Index
	case m.Subject != "" && m.ArtifactType == mediaTypeNotation:
		return Notation
	case m.Subject != "" && IsBundle(m.ArtifactType):
		return Bundle
	case m.Subject != "" && m.ArtifactType == mediaTypeCosignArtifact, m.all(MediaTypeCosignLayer):
		return Cosign
	case m.Subject != "" && m.ArtifactType == mediaTypeCosignAttested, m.all(mediaTypeEnvelope), m.all(mediaTypeStatement):
		return Attestation
	case m.ArtifactType != "":
		return Artifact
	}
	return Image
}

// all reports that there are layers, and that all are of the media type.
func (m *Manifest) all(mediaType string) bool {
	for _, layer := range m.Layers {
		if layer.MediaType != mediaType {
			return false
		}
	}
	return len(m.Layers) > 0
}

// IsBundle reports whether a media type is that of a sigstore bundle of any
// version: …bundle.v0.3+json, or …bundle+json;version=0.2.
func IsBundle(mediaType string) bool {
	rest, ok := strings.CutPrefix(mediaType, mediaTypeBundleBase)
	return ok && (strings.HasPrefix(rest, ".v0.") && strings.HasSuffix(rest, "+json") || strings.HasPrefix(rest, "+json;version=0."))
}
