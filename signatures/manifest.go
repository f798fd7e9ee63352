package signatures

import (
	"encoding/json"
	"regexp"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of signatures and attestations. Sources: cosign's specs/SIGNATURE_SPEC.md, the
// sigstore bundle specification, notaryproject's signature-specification.md, BuildKit's
// attestation-storage.md.
const (
	mediaTypeCosignLayer    = "application/vnd.dev.cosign.simplesigning.v1+json"
	mediaTypeCosignArtifact = "application/vnd.dev.cosign.artifact.sig.v1+json"
	mediaTypeNotation       = "application/vnd.cncf.notary.signature"
	mediaTypeBundleBase     = "application/vnd.dev.sigstore.bundle"
	mediaTypeEnvelope       = "application/vnd.dsse.envelope.v1+json"
	mediaTypeStatement      = "application/vnd.in-toto+json"
	mediaTypeCosignAttested = "application/vnd.dev.cosign.artifact.att.v1+json"
	mediaTypeNotationJWS    = "application/jose+json"
	mediaTypeNotationCOSE   = "application/cose"
	mediaTypeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Kind is the kind of a manifest.
type Kind string

// The kinds.
const (
	// KindContent is an image, an index or any other artifact. Only this kind
	// has an Image of its own.
	KindContent Kind = ""
	// KindCosign has signatures of cosign's classic form, under a tag or with a
	// subject.
	KindCosign Kind = "cosign"
	// KindBundle has a sigstore bundle: a signature, or an attestation.
	KindBundle Kind = "bundle"
	// KindNotation has a notation envelope.
	KindNotation Kind = "notation"
	// KindAttestation has statements about an image that are no signatures.
	KindAttestation Kind = "attestation"
)

// Manifest has the fields of a manifest, image or index, that signatures depend on.
type Manifest struct {
	MediaType    string
	ArtifactType string // its own or, without a container image's config, its config's media type
	Kind         Kind
	// Subject is the digest of the manifest that this one is about, "" if none.
	Subject     digest.Digest
	Layers      []imagespec.Descriptor
	Manifests   []imagespec.Descriptor
	Annotations map[string]string
	IsIndex     bool
}

// ParseManifest parses a manifest leniently: fields of the wrong type are ignored. If content
// is not a manifest, it returns a Manifest of KindContent with no layers.
func ParseManifest(mediaType string, content []byte) *Manifest {
	var raw struct {
		MediaType    json.RawMessage `json:"mediaType"`
		ArtifactType json.RawMessage `json:"artifactType"`
		Config       json.RawMessage `json:"config"`
		Layers       json.RawMessage `json:"layers"`
		Manifests    json.RawMessage `json:"manifests"`
		Subject      json.RawMessage `json:"subject"`
		Annotations  json.RawMessage `json:"annotations"`
	}
	m := &Manifest{MediaType: mediaType}
	if json.Unmarshal(content, &raw) != nil {
		return m
	}
	var config, subject imagespec.Descriptor
	if m.MediaType == "" {
		lenient(raw.MediaType, &m.MediaType)
	}
	lenient(raw.ArtifactType, &m.ArtifactType)
	lenient(raw.Config, &config)
	lenient(raw.Layers, &m.Layers)
	lenient(raw.Manifests, &m.Manifests)
	lenient(raw.Subject, &subject)
	lenient(raw.Annotations, &m.Annotations)
	m.IsIndex = m.MediaType == imagespec.MediaTypeImageIndex || m.MediaType == mediaTypeDockerIndex
	if m.ArtifactType == "" && !m.IsIndex {
		m.ArtifactType = config.MediaType
	}
	if subject.Digest.Validate() == nil {
		m.Subject = subject.Digest
	}
	m.Kind = m.kind()
	return m
}

// lenient unmarshals raw into into, and ignores a value of another type.
func lenient[T any](raw json.RawMessage, into *T) {
	var value T
	if raw != nil && json.Unmarshal(raw, &value) == nil {
		*into = value
	}
}

func (m *Manifest) kind() Kind {
	if m.IsIndex {
		return KindContent
	}
	switch {
	case m.Subject != "" && m.ArtifactType == mediaTypeNotation:
		return KindNotation
	case m.Subject != "" && isBundle(m.ArtifactType):
		return KindBundle
	case m.Subject != "" && m.ArtifactType == mediaTypeCosignArtifact, m.all(mediaTypeCosignLayer):
		return KindCosign
	case m.Subject != "" && m.ArtifactType == mediaTypeCosignAttested, m.all(mediaTypeEnvelope), m.all(mediaTypeStatement):
		return KindAttestation
	}
	return KindContent
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

// isBundle reports whether a media type is that of a sigstore bundle of any
// version: …bundle.v0.3+json, or …bundle+json;version=0.2.
func isBundle(mediaType string) bool {
	rest, ok := strings.CutPrefix(mediaType, mediaTypeBundleBase)
	return ok && (strings.HasPrefix(rest, ".v0.") && strings.HasSuffix(rest, "+json") || strings.HasPrefix(rest, "+json;version=0."))
}

// HasImage reports whether the manifest gets an Image of its own: signatures and attestations
// do not.
func (m *Manifest) HasImage() bool { return m.Kind == KindContent }

var (
	signatureTag = regexp.MustCompile(`^(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})\.sig$`)
	referrersTag = regexp.MustCompile(`^(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})$`)
)

// SignatureTag returns the digest that a tag of cosign's classic form is about:
// sha256-<hex>.sig.
func SignatureTag(tag string) (subject digest.Digest, ok bool) {
	return taggedDigest(signatureTag, tag)
}

// ReferrersTag returns the digest that a tag of the referrers tag schema is about:
// sha256-<hex> (distribution-spec). It may as well be an image's own tag.
func ReferrersTag(tag string) (subject digest.Digest, ok bool) {
	return taggedDigest(referrersTag, tag)
}

func taggedDigest(pattern *regexp.Regexp, tag string) (digest.Digest, bool) {
	found := pattern.FindStringSubmatch(tag)
	if found == nil {
		return "", false
	}
	algorithm, hex, _ := strings.Cut(found[1], "-")
	return digest.Digest(algorithm + ":" + hex), true
}
