package signatures_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/signatures/manifest"
)

const subject = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func about(artifactType, config string, layers ...string) string {
	m := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"` + config + `","digest":"` + subject + `","size":2},"layers":[`
	for i, layer := range layers {
		if i > 0 {
			m += ","
		}
		m += `{"mediaType":"` + layer + `","digest":"` + subject + `","size":2}`
	}
	m += "]"
	if artifactType != "" {
		m += `,"artifactType":"` + artifactType + `"`
	}
	return m
}

const (
	imageConfig = "application/vnd.oci.image.config.v1+json"
	withSubject = `,"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + subject + `","size":5}}`
	bundle      = "application/vnd.dev.sigstore.bundle.v0.3+json"
	simple      = "application/vnd.dev.cosign.simplesigning.v1+json"
)

func TestTags(t *testing.T) {
	hex := strings.TrimPrefix(subject, "sha256:")
	for tag, want := range map[string]string{
		"sha256-" + hex + ".sig": subject, "sha256-" + hex + ".att": "", "sha256-" + hex[1:] + ".sig": "", "v1.sig": "", "sha512-" + hex + ".sig": "",
	} {
		if got, ok := signatures.SignatureTag(tag); string(got) != want || ok != (want != "") {
			t.Errorf("%s is a signature of %q", tag, got)
		}
	}
	if got, ok := signatures.ReferrersTag("sha256-" + hex); got != subject || !ok {
		t.Errorf("the referrers tag is of %q", got)
	}
	if _, ok := signatures.ReferrersTag("sha256-" + hex + ".sig"); ok {
		t.Error("a signature tag is a referrers tag")
	}
}

func TestName(t *testing.T) {
	a := signatures.Name(subject, signatures.Signature{Type: "a", Content: []byte("bc")})
	if a != signatures.Name(subject, signatures.Signature{Type: "a", Content: []byte("bc")}) || !strings.HasPrefix(a, subject+"@") || len(a) != len(subject)+33 {
		t.Errorf("the name is %s", a)
	}
	if a == signatures.Name(subject, signatures.Signature{Type: "ab", Content: []byte("c")}) {
		t.Error("type and content run together")
	}
}

var limits = signatures.Limits{Content: 1000, PerImage: 4}

// extract returns the signatures of a manifest of some layers, whose blobs are contents.
func extract(artifactType string, contents map[string]string, layers ...imagespec.Descriptor) ([]signatures.Signature, error) {
	m := &manifest.Manifest{Subject: subject, ArtifactType: artifactType, Layers: layers, Kind: map[string]manifest.Kind{
		bundle: manifest.Bundle, simple: manifest.Cosign, "application/jose+json": manifest.Notation,
	}[artifactType]}
	return signatures.Extract(m, limits, func(d imagespec.Descriptor) ([]byte, error) {
		content, ok := contents[string(d.Digest)]
		switch {
		case content == "broken":
			return nil, errors.New("broken")
		case !ok:
			return nil, signatures.ErrBlobMissing
		}
		return []byte(content), nil
	})
}

func layer(mediaType, name string, annotations ...string) imagespec.Descriptor {
	d := imagespec.Descriptor{MediaType: mediaType, Digest: digest.Digest(name), Size: 5, Annotations: map[string]string{}}
	for i := 0; i+1 < len(annotations); i += 2 {
		d.Annotations[annotations[i]] = annotations[i+1]
	}
	return d
}

func TestExtract(t *testing.T) {
	// One payload under two signatures is two; annotations of others are left out.
	got, err := extract(simple, map[string]string{"a": "payload"},
		layer(simple, "a", signatures.AnnotationCosignSignature, "one", "other", "x"), layer(simple, "a", signatures.AnnotationCosignSignature, "two"))
	if err != nil || len(got) != 2 || got[0].Type != signatures.TypeCosign || strings.Contains(string(got[0].Content), "other") ||
		!strings.Contains(string(got[1].Content), `"two"`) {
		t.Errorf("cosign: %s, %v", got, err)
	}
	got, err = extract("application/jose+json", map[string]string{"a": "envelope"}, layer("application/jose+json", "a"), layer("text/plain", "a"))
	if err != nil || len(got) != 1 || got[0].Type != signatures.TypeNotaryJWS || string(got[0].Content) != "envelope" {
		t.Errorf("notation: %s, %v", got, err)
	}
	got, err = extract("application/jose+json", map[string]string{"a": strings.Repeat("x", 1001)}, layer("application/jose+json", "a"))
	if err != nil || len(got) != 1 || signatures.IsReference(got[0].Content) {
		t.Errorf("a reference to a blob without a valid digest: %s, %v", got, err)
	}
	huge := layer("application/jose+json", subject)
	huge.Size = 5 << 20
	got, err = extract("application/jose+json", nil, huge)
	if err != nil || len(got) != 1 || !signatures.IsReference(got[0].Content) {
		t.Errorf("too large: %s, %v", got, err)
	}
	got, err = extract("application/jose+json", map[string]string{"b": "here"}, layer("application/jose+json", "a"), layer("application/jose+json", "b"))
	if !errors.Is(err, signatures.ErrBlobMissing) || len(got) != 1 {
		t.Errorf("with a blob missing: %s, %v", got, err)
	}
	if got, err = extract("application/jose+json", map[string]string{"a": "broken"}, layer("application/jose+json", "a")); err == nil || got != nil {
		t.Errorf("with storage broken: %s, %v", got, err)
	}
	if got, err = extract("application/jose+json", map[string]string{"a": ""}, layer("application/jose+json", "a")); err != nil || len(got) != 1 || len(got[0].Content) == 0 {
		t.Errorf("an empty blob: %q, %v", got, err)
	}
}

// TestExtractBundle: the statement under a bundle's signature gives its kind, and not the
// manifest's annotations.
func TestExtractBundle(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    int
	}{
		"signature":         {`{"dsseEnvelope":{"payload":"` + encoded(`{"predicateType":"https://sigstore.dev/cosign/sign/v1"}`) + `"}}`, 1},
		"attestation":       {`{"dsseEnvelope":{"payload":"` + encoded(`{"predicateType":"https://slsa.dev/provenance/v1"}`) + `"}}`, 0},
		"message signature": {`{"messageSignature":{}}`, 1},
		"not JSON":          {`hello`, 1},
		"no statement":      {`{"dsseEnvelope":{"payload":"` + encoded(`hello`) + `"}}`, 1},
	} {
		m, err := manifest.Parse(imagespec.MediaTypeImageManifest, []byte(strings.Replace(
			about(bundle, "application/vnd.oci.empty.v1+json", bundle)+withSubject, `"schemaVersion":2`,
			`"schemaVersion":2,"annotations":{"dev.sigstore.bundle.predicateType":"https://sigstore.dev/cosign/sign/v1"}`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := signatures.Extract(m, limits, func(imagespec.Descriptor) ([]byte, error) { return []byte(c.content), nil })
		if err != nil || len(got) != c.want {
			t.Errorf("%s: %d signatures, %v", name, len(got), err)
		}
	}
}

func encoded(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// FuzzExtract: no manifest and no blob makes it panic or exceed its limits.
func FuzzExtract(f *testing.F) {
	f.Add([]byte(about(bundle, "application/vnd.oci.empty.v1+json", bundle)+withSubject), []byte(`{"dsseEnvelope":{"payload":"e30="}}`))
	f.Add([]byte(about("", imageConfig, simple)+"}"), []byte("payload"))
	f.Add([]byte(about("", "application/vnd.cncf.notary.signature", "application/jose+json")+withSubject), []byte("{}"))
	f.Fuzz(func(t *testing.T, content, blob []byte) {
		m, err := manifest.Parse("", content)
		if err != nil {
			return
		}
		got, err := signatures.Extract(m, limits, func(imagespec.Descriptor) ([]byte, error) { return blob, nil })
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range got {
			if len(s.Content) == 0 || int64(len(s.Content)) > limits.Content && !signatures.IsReference(s.Content) && len(s.Content) > 2*len(content)+200 {
				t.Errorf("content of %d bytes", len(s.Content))
			}
		}
	})
}
