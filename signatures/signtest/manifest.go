package signtest

import (
	"encoding/json"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
)

// Artifact is a manifest with the blobs that it names.
type Artifact struct {
	Manifest []byte
	Blobs    [][]byte
	Digest   digest.Digest
}

// ClassicTag is the tag under which cosign keeps the signatures of subject.
func ClassicTag(subject digest.Digest) string {
	return strings.Replace(subject.String(), ":", "-", 1) + ".sig"
}

// Classic is the manifest that cosign pushes under ClassicTag: a layer for each
// signature.
func Classic(all ...signatures.Signature) Artifact {
	a := newArtifact(imagespec.MediaTypeImageConfig, []byte(`{"architecture":"","os":"","rootfs":{"type":"layers","diff_ids":[]}}`))
	return a.withCosign(all).build()
}

// ClassicReferrer is the same as a referrer of subject, as of COSIGN_EXPERIMENTAL.
func ClassicReferrer(subject digest.Digest, all ...signatures.Signature) Artifact {
	a := newArtifact("application/vnd.dev.cosign.artifact.sig.v1+json", []byte("{}"))
	return a.about(subject).withCosign(all).build()
}

// Referrer is the manifest that cosign pushes for a bundle, and notation for an
// envelope.
func Referrer(subject digest.Digest, s signatures.Signature) Artifact {
	const bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	switch s.Type {
	case signatures.TypeNotaryJWS, signatures.TypeNotaryCOSE:
		mediaType := map[string]string{signatures.TypeNotaryJWS: "application/jose+json", signatures.TypeNotaryCOSE: "application/cose"}[s.Type]
		return newArtifact("application/vnd.cncf.notary.signature", []byte("{}")).about(subject).withLayer(mediaType, s.Content, nil).build()
	}
	a := newArtifact("application/vnd.oci.empty.v1+json", []byte("{}")).about(subject).withLayer(bundle, s.Content, nil)
	a.manifest.ArtifactType = bundle
	// Anybody can say so.
	a.manifest.Annotations = map[string]string{"dev.sigstore.bundle.predicateType": signatures.PredicateCosignSign}
	return a.build()
}

type artifactBuilder struct {
	manifest imagespec.Manifest
	blobs    [][]byte
}

func newArtifact(configType string, config []byte) *artifactBuilder {
	a := &artifactBuilder{manifest: imagespec.Manifest{MediaType: imagespec.MediaTypeImageManifest, Layers: []imagespec.Descriptor{}}}
	a.manifest.SchemaVersion = 2
	a.manifest.Config = a.blob(configType, config)
	return a
}

func (a *artifactBuilder) blob(mediaType string, content []byte) imagespec.Descriptor {
	a.blobs = append(a.blobs, content)
	return imagespec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

func (a *artifactBuilder) about(subject digest.Digest) *artifactBuilder {
	a.manifest.Subject = &imagespec.Descriptor{MediaType: imagespec.MediaTypeImageManifest, Digest: subject, Size: 1}
	return a
}

func (a *artifactBuilder) withLayer(mediaType string, content []byte, annotations map[string]string) *artifactBuilder {
	d := a.blob(mediaType, content)
	d.Annotations = annotations
	a.manifest.Layers = append(a.manifest.Layers, d)
	return a
}

func (a *artifactBuilder) withCosign(all []signatures.Signature) *artifactBuilder {
	for _, s := range all {
		var c signatures.CosignContent
		if err := json.Unmarshal(s.Content, &c); err != nil {
			panic(err) // it is not a signature of cosign's classic form
		}
		a.withLayer(c.MIMEType, c.Payload, c.Annotations)
	}
	return a
}

func (a *artifactBuilder) build() Artifact {
	content, err := json.Marshal(a.manifest)
	if err != nil {
		panic(err) // texts are always JSON
	}
	return Artifact{Manifest: content, Blobs: a.blobs, Digest: digest.FromBytes(content)}
}
