package manifest_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures/manifest"
)

const (
	subject = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	other   = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

	ociImage = imagespec.MediaTypeImageManifest
	ociIndex = imagespec.MediaTypeImageIndex
	config   = imagespec.MediaTypeImageConfig
	tarGzip  = imagespec.MediaTypeImageLayerGzip
	bundle   = "application/vnd.dev.sigstore.bundle.v0.3+json"
	simple   = manifest.MediaTypeCosignLayer
	empty    = imagespec.MediaTypeEmptyJSON
)

func descriptor(mediaType, name string) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":2}`, mediaType, name)
}

// image returns an image manifest with a config and layers of some media types, and more fields.
func image(configType string, layers []string, more ...string) string {
	for i := range layers {
		layers[i] = descriptor(layers[i], subject)
	}
	return `{"schemaVersion":2,"config":` + descriptor(configType, subject) + `,"layers":[` + strings.Join(layers, ",") + `]` + strings.Join(more, "") + `}`
}

func artifactType(t string) string { return fmt.Sprintf(`,"artifactType":%q`, t) }

const (
	about   = `,"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + subject + `","size":5}`
	schema1 = `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + subject + `"}],"history":[{"v1Compatibility":"{}"}]}`
	index   = `{"schemaVersion":2,"manifests":[{"digest":"` + subject + `"}]}`
)

// TestKind has a document of every kind.
func TestKind(t *testing.T) {
	of := func(types ...string) []string { return types }
	for name, c := range map[string]struct {
		content, format string
		kind            manifest.Kind
	}{
		"OCI image":                {image(config, of(tarGzip)), ociImage, manifest.Image},
		"Docker image":             {image(manifest.MediaTypeDockerConfig, of(tarGzip)), manifest.MediaTypeDockerManifest, manifest.Image},
		"Docker schema 1":          {schema1, manifest.MediaTypeSchema1, manifest.Image},
		"image without layers":     {image(config, nil), ociImage, manifest.Image},
		"image about an image":     {image(config, of(tarGzip), about), ociImage, manifest.Image},
		"image with one odd layer": {image(config, of(simple, tarGzip)), ociImage, manifest.Image},
		"layers alone":             {`{"layers":[]}`, ociImage, manifest.Image},
		"OCI index":                {index, ociIndex, manifest.Index},
		"empty index":              {`{"schemaVersion":2,"manifests":[]}`, ociIndex, manifest.Index},
		"index with a subject":     {`{"schemaVersion":2,"manifests":[]` + about + artifactType("x/y") + `}`, ociIndex, manifest.Index},
		"Docker manifest list":     {`{"schemaVersion":2,"mediaType":"` + manifest.MediaTypeDockerManifestList + `","manifests":[]}`, manifest.MediaTypeDockerManifestList, manifest.Index},
		"Helm chart":               {image("application/vnd.cncf.helm.config.v1+json", of("application/vnd.cncf.helm.chart.content.v1.tar+gzip")), ociImage, manifest.Artifact},
		"WebAssembly":              {image("application/vnd.wasm.config.v0+json", of("application/wasm"), artifactType("application/wasm")), ociImage, manifest.Artifact},
		"SBOM about an image":      {image(empty, of("text/spdx+json"), artifactType("application/spdx+json"), about), ociImage, manifest.Artifact},
		"cosign's tag":             {image(config, of(simple, simple)), ociImage, manifest.Cosign},
		"cosign's referrer, v2":    {image("application/vnd.dev.cosign.artifact.sig.v1+json", of(simple), about), ociImage, manifest.Cosign},
		"cosign's referrer, v3":    {image(empty, of("x/y"), artifactType("application/vnd.dev.cosign.artifact.sig.v1+json"), about), ociImage, manifest.Cosign},
		"bundle":                   {image(empty, of(bundle), artifactType(bundle), about), ociImage, manifest.Bundle},
		"bundle of old":            {image(empty, of(bundle), artifactType("application/vnd.dev.sigstore.bundle+json;version=0.2"), about), ociImage, manifest.Bundle},
		"bundle about nothing":     {image(empty, of(bundle), artifactType(bundle)), ociImage, manifest.Artifact},
		"notation":                 {image("application/vnd.cncf.notary.signature", of("application/jose+json"), about), ociImage, manifest.Notation},
		"cosign's attestation":     {image(config, of("application/vnd.dsse.envelope.v1+json")), ociImage, manifest.Attestation},
		"cosign's, by subject":     {image(empty, of("x/y"), artifactType("application/vnd.dev.cosign.artifact.att.v1+json"), about), ociImage, manifest.Attestation},
		"BuildKit's attestation":   {image(config, of("application/vnd.in-toto+json", "application/vnd.in-toto+json")), ociImage, manifest.Attestation},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := manifest.Parse("", []byte(c.content))
			if err != nil {
				t.Fatal(err)
			}
			if m.Kind != c.kind || m.MediaType != c.format || m.IsIndex() != (c.kind == manifest.Index) {
				t.Errorf("%s of %s, want %s of %s", m.Kind, m.MediaType, c.kind, c.format)
			}
			if want := c.kind == manifest.Image || c.kind == manifest.Index || c.kind == manifest.Artifact; m.HasImage() != want {
				t.Errorf("HasImage is %v", m.HasImage())
			}
			if want := strings.Contains(c.content, `"subject":`); (m.Subject == subject) != want {
				t.Errorf("the subject is %q", m.Subject)
			}
			if m.Digest(digest.SHA256) != digest.FromString(c.content) || m.Ambiguous != nil {
				t.Errorf("digest %s, ambiguous %q", m.Digest(digest.SHA256), m.Ambiguous)
			}
		})
	}
}

// TestFormat: the manifest's own media type counts more than the one that it came with, and its
// fields more than both.
func TestFormat(t *testing.T) {
	own := func(mediaType, content string) string {
		return strings.Replace(content, `{`, fmt.Sprintf(`{"mediaType":%q,`, mediaType), 1)
	}
	img := image(config, []string{tarGzip})
	for name, c := range map[string]struct{ cameWith, content, want string }{
		"its own":                        {ociImage, own(manifest.MediaTypeDockerManifest, img), manifest.MediaTypeDockerManifest},
		"only another's":                 {manifest.MediaTypeDockerManifest, img, manifest.MediaTypeDockerManifest},
		"with a parameter":               {manifest.MediaTypeDockerManifest + "; charset=utf-8", img, manifest.MediaTypeDockerManifest},
		"an unknown one":                 {"text/plain", own("x/y", img), ociImage},
		"an index that came as an image": {ociImage, index, ociIndex},
		"an index that says image":       {"", own(ociImage, index), ociIndex},
		"an image that came as an index": {ociIndex, img, ociImage},
		"an image that came as schema 1": {manifest.MediaTypeSchema1, img, ociImage},
		"schema 1, signed":               {manifest.MediaTypeSchema1Signed, schema1, manifest.MediaTypeSchema1},
		"schema 1 that came as an image": {ociImage, schema1, manifest.MediaTypeSchema1},
		"both; it says index":            {ociImage, own(ociIndex, `{"schemaVersion":2,"layers":[],"manifests":[]}`), ociIndex},
		"both; it came as an image":      {ociImage, `{"schemaVersion":2,"layers":[],"manifests":[]}`, ociImage},
		"neither, but a version":         {ociImage, `{"schemaVersion":2}`, ociImage},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := manifest.Parse(c.cameWith, []byte(c.content))
			if err != nil {
				t.Fatal(err)
			}
			if m.MediaType != c.want {
				t.Errorf("%s, want %s", m.MediaType, c.want)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	for name, c := range map[string]struct{ mediaType, content, want string }{
		"nothing":                   {"", "", "unexpected end of JSON"},
		"text":                      {ociImage, "hello", "invalid character"},
		"null":                      {ociImage, "null", "no config, layers or manifests"},
		"a list":                    {ociImage, "[]", "it is not a JSON object"},
		"an empty object":           {ociImage, "{}", "no config, layers or manifests"},
		"other fields":              {ociImage, `{"a":1}`, "no config, layers or manifests"},
		"only a version":            {"", `{"schemaVersion":2}`, "no config, layers or manifests"},
		"another version":           {ociImage, `{"schemaVersion":9,"layers":[]}`, "schemaVersion: it is 9, want 1 or 2"},
		"a version as text":         {ociImage, `{"schemaVersion":"2","layers":[]}`, "schemaVersion"},
		"layers a string":           {ociImage, `{"layers":"x"}`, "layers"},
		"a size that is text":       {"", `{"layers":[{"size":"x"}]}`, "layers"},
		"config a list":             {ociImage, `{"config":[],"layers":[]}`, "config"},
		"manifests an object":       {ociIndex, `{"manifests":{}}`, "manifests"},
		"schema 1 without history":  {"", `{"schemaVersion":1,"fsLayers":[]}`, "history: it is empty"},
		"schema 1 of unequal lists": {"", `{"schemaVersion":1,"fsLayers":[],"history":[{"v1Compatibility":"{}"}]}`, "1 entries for 0 layers"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := manifest.Parse(c.mediaType, []byte(c.content))
			if !errors.Is(err, manifest.ErrNotManifest) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, error %v, want one with %q", m, err, c.want)
			}
		})
	}
}

// TestForeignFields: fields that are unknown, of another format or about the manifest alone never
// prevent it from being read.
func TestForeignFields(t *testing.T) {
	for _, field := range []string{
		`,"history":1`, `,"fsLayers":"x"`, `,"manifests":7`, `,"annotations":1`, `,"artifactType":[]`, `,"subject":"x"`, `,"mediaType":5`,
		`,"subject":{"digest":"x"}`, `,"x":{"layers":1}`, `,"signatures":1`,
	} {
		m, err := manifest.Parse(ociImage, []byte(image(config, []string{tarGzip}, field)))
		if err != nil || m.Kind != manifest.Image || len(m.Layers) != 1 || m.Subject != "" {
			t.Errorf("with %s: %+v, %v", field, m, err)
		}
	}
	m, err := manifest.Parse(ociIndex, []byte(`{"schemaVersion":2,"manifests":[],"config":7,"layers":"x"}`))
	if err != nil || m.Kind != manifest.Index || m.Config != nil || m.Layers != nil {
		t.Errorf("an index: %+v, %v", m, err)
	}
}

// TestAmbiguous: the reading is encoding/json's, and the manifest says that there are others.
func TestAmbiguous(t *testing.T) {
	a, b := descriptor(tarGzip, subject), descriptor(tarGzip, other)
	for name, c := range map[string]struct {
		content string
		layers  []digest.Digest
		want    []string
	}{
		"another case, last":       {`{"schemaVersion":2,"config":` + a + `,"layers":[` + a + `],"Config":` + b + `,"Layers":[` + b + `]}`, []digest.Digest{other}, []string{"config", "layers"}},
		"another case, alone":      {`{"schemaVersion":2,"LAYERS":[` + b + `]}`, []digest.Digest{other}, nil},
		"the same name twice":      {`{"layers":[` + a + `],"layers":[` + b + `]}`, []digest.Digest{other}, []string{"layers"}},
		"fewer in the second":      {`{"layers":[` + a + `],"layers":[]}`, []digest.Digest{}, []string{"layers"}},
		"in a layer":               {`{"layers":[{"digest":"` + subject + `","Digest":"` + other + `"}]}`, []digest.Digest{other}, []string{"layers.digest"}},
		"by the long s":            {`{"layers":[` + a + `],"layerſ":[` + b + `]}`, []digest.Digest{other}, []string{"layers"}},
		"manifests and layers":     {`{"layers":[` + a + `],"manifests":[]}`, []digest.Digest{subject}, []string{"manifests"}},
		"schema 1 and layers":      {`{"layers":[` + a + `],"history":[],"fsLayers":[]}`, []digest.Digest{subject}, []string{"fsLayers", "history"}},
		"null beside layers":       {`{"layers":[` + a + `],"manifests":null}`, []digest.Digest{subject}, nil},
		"annotations of two cases": {`{"layers":[` + a + `],"annotations":{"a":"1","A":"2"}}`, []digest.Digest{subject}, nil},
		"unknown fields":           {`{"layers":[` + a + `],"x":1,"X":{"y":1,"y":2}}`, []digest.Digest{subject}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := manifest.Parse(ociImage, []byte(c.content))
			if err != nil {
				t.Fatal(err)
			}
			layers := []digest.Digest{}
			for _, layer := range m.Layers {
				layers = append(layers, layer.Digest)
			}
			if !slices.Equal(layers, c.layers) || !slices.Equal(m.Ambiguous, c.want) {
				t.Errorf("layers %s, want %s; ambiguous %q, want %q", layers, c.layers, m.Ambiguous, c.want)
			}
		})
	}
	m, err := manifest.Parse("", []byte(`{"manifests":[],"config":{},"layers":[]}`))
	if err != nil || m.Kind != manifest.Image {
		t.Errorf("an image with manifests, without a media type: %+v, %v", m, err)
	}
}

// TestDescriptor: the referrers API has the media type of a config as the artifact type.
func TestDescriptor(t *testing.T) {
	for content, want := range map[string]string{
		image(config, nil, about):                     config,
		image(empty, nil, about):                      empty,
		image(empty, nil, about, artifactType("x/y")): "x/y",
		`{"schemaVersion":2,"manifests":[]}`:          "",
	} {
		m, err := manifest.Parse("", []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		d := m.Descriptor(other)
		if d.ArtifactType != want || d.Digest != other || d.Size != int64(len(content)) || d.MediaType != m.MediaType {
			t.Errorf("%s: %+v", content, d)
		}
	}
}

// TestContent: a Manifest keeps the exact bytes.
func TestContent(t *testing.T) {
	content := "\n " + index
	m, err := manifest.Parse("", []byte(content))
	if err != nil || string(m.Content) != content {
		t.Errorf("%q, %v", m.Content, err)
	}
}
