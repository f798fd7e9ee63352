package manifest_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/manifest/manifestlist"
	"github.com/distribution/distribution/v3/manifest/ocischema"
	"github.com/distribution/distribution/v3/manifest/schema2"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	podman "go.podman.io/image/v5/manifest"

	"tallyman/signatures/manifest"
)

// FuzzParse compares the reading with those of others: the registry's own (distribution), that of
// image-spec's types (containerd, oras) and containers/image's (podman, skopeo, CRI-O).
func FuzzParse(f *testing.F) {
	formats := []string{ociImage, ociIndex, manifest.MediaTypeDockerManifest, manifest.MediaTypeDockerManifestList, manifest.MediaTypeSchema1, ""}
	layer := descriptor(tarGzip, subject)
	for _, content := range []string{
		image(config, []string{tarGzip}), image(empty, nil, about, artifactType("x/y")), index, schema1, "null", "[]", `{"schemaVersion":2}`,
		image(config, []string{tarGzip}, `,"Layers":[]`, `,"history":1`), `{"layers":[` + layer + `],"layers":[{"size":7}]}`,
		// Documents that registries have accepted, and some readers not: a panic in distribution, other
		// content for other readers, fields of other formats, formats of older registries.
		`{"schemaVersion":2,"manifests":"x","manifests":null,"config":` + layer + `,"layers":[]}`,
		`{"schemaVersion":2,"config":` + layer + `,"layers":[` + layer + `],"Config":{"size":1},"Layers":[]}`,
		image(config, []string{tarGzip}, `,"fsLayers":"x"`, `,"manifests":{}`), `{"schemaVersion":2,"manifests":[],"config":"x"}`,
		`{"mediaType":"application/vnd.oci.artifact.manifest.v1+json","artifactType":"x/y","blobs":[` + layer + `],"subject":` + layer + `}`,
		`{"schemaVersion":2,"config":` + layer + `,"Config":{"size":3},"layers":[]}`, `{"manifests":[{"platform":{"os":"linux"}}],"layers":[]}`,
	} {
		for i := range formats {
			f.Add(uint8(i), []byte(content))
		}
	}
	f.Fuzz(func(t *testing.T, format uint8, content []byte) {
		mediaType := formats[int(format)%len(formats)]
		m, err := manifest.Parse(mediaType, content)
		again, againErr := manifest.Parse(mediaType, content)
		if (err == nil) != (againErr == nil) || err == nil && m.Kind != again.Kind {
			t.Fatalf("two readings of one document: %v, %v", err, againErr)
		}
		comparison{t, mediaType, content, m, err}.all()
	})
}

// comparison compares m, or err, with readings of others.
type comparison struct {
	*testing.T
	mediaType string
	content   []byte
	m         *manifest.Manifest
	err       error
}

func (c comparison) all() {
	c.withDistribution()
	c.withTypes()
	c.withContainers()
}

// withDistribution: a manifest that a registry takes has the same content here. distribution
// takes documents without any content, such as {}, too.
func (c comparison) withDistribution() {
	if c.mediaType == "" || c.mediaType == manifest.MediaTypeSchema1 {
		return
	}
	theirs, _, err := distribution.UnmarshalManifest(c.mediaType, c.content)
	if err != nil || len(theirs.References()) == 0 || theirs.References()[0].Digest == "" {
		return
	}
	var version struct{ SchemaVersion int }
	if c.err != nil && (json.Unmarshal(c.content, &version) != nil || version.SchemaVersion != 2) {
		return // a registry reads it, and does not take it
	}
	if c.err != nil {
		c.Fatalf("distribution reads it: %v", c.err)
	}
	if c.m.MediaType != c.mediaType {
		c.Fatalf("distribution reads %s as %s", c.m.MediaType, c.mediaType)
	}
	switch theirs := theirs.(type) {
	case *ocischema.DeserializedManifest:
		c.image(&theirs.Config, theirs.Layers)
	case *schema2.DeserializedManifest:
		c.image(&theirs.Config, theirs.Layers)
	case *ocischema.DeserializedImageIndex:
		c.same("manifests", c.m.Manifests, theirs.Manifests)
	case *manifestlist.DeserializedManifestList:
		var all []imagespec.Descriptor
		for _, d := range theirs.Manifests {
			all = append(all, d.Descriptor)
		}
		c.same("manifests", c.m.Manifests, all)
	default:
		c.Fatalf("%T", theirs)
	}
}

// withTypes: clients unmarshal what they are given into these types.
func (c comparison) withTypes() {
	if c.err != nil {
		return
	}
	var image imagespec.Manifest
	var list imagespec.Index
	switch {
	case c.m.MediaType == manifest.MediaTypeSchema1, c.m.MediaType == manifest.MediaTypeArtifact:
	case c.m.IsIndex():
		if json.Unmarshal(c.content, &list) == nil {
			c.same("manifests", c.m.Manifests, list.Manifests)
		}
	case json.Unmarshal(c.content, &image) == nil:
		c.image(&image.Config, image.Layers)
		if image.Subject != nil && image.Subject.Digest.Validate() == nil && c.m.Subject != image.Subject.Digest {
			c.Fatalf("subject %s, want %s", c.m.Subject, image.Subject.Digest)
		}
	}
}

// withContainers: containers/image refuses documents with fields of two formats, which are
// ambiguous here.
func (c comparison) withContainers() {
	if c.err != nil || c.m.MediaType != ociImage {
		return
	}
	theirs, err := podman.OCI1FromManifest(c.content)
	if err != nil {
		return
	}
	c.image(&theirs.Config, theirs.Layers)
	for _, name := range c.m.Ambiguous {
		foreign := name == "manifests" || name == "fsLayers" || name == "history"
		// A field given twice is ambiguous here also where the last one is null.
		if foreign && bytes.Count(bytes.ToLower(c.content), []byte(`"`+strings.ToLower(name)+`"`)) == 1 {
			c.Fatalf("containers/image finds nothing ambiguous in it, but %q", c.m.Ambiguous)
		}
	}
}

func (c comparison) image(config *imagespec.Descriptor, layers []imagespec.Descriptor) {
	c.Helper()
	ours := imagespec.Descriptor{}
	if c.m.Config != nil {
		ours = *c.m.Config
	}
	c.same("config", []imagespec.Descriptor{ours}, []imagespec.Descriptor{*config})
	c.same("layers", c.m.Layers, layers)
}

func (c comparison) same(name string, ours, theirs []imagespec.Descriptor) {
	c.Helper()
	if len(ours) != len(theirs) {
		c.Fatalf("%d %s, want %d", len(ours), name, len(theirs))
	}
	for i := range ours {
		if [2]any{ours[i].Digest, ours[i].MediaType} != [2]any{theirs[i].Digest, theirs[i].MediaType} || ours[i].Size != theirs[i].Size {
			c.Fatalf("%s[%d] is %+v, want %+v", name, i, ours[i], theirs[i])
		}
	}
}

// FuzzDigest: no signature of schema 1 makes the digest panic.
func FuzzDigest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[{}],"history":[{"v1Compatibility":"{}"}],"signatures":[{"protected":"e30"}]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		m, err := manifest.Parse(manifest.MediaTypeSchema1, content)
		if err == nil && m.Digest(digest.SHA256).Validate() != nil {
			t.Error("no digest")
		}
	})
}
