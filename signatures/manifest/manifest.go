// Package manifest parses the manifests of a registry: OCI and Docker images and indexes, Docker's
// schema 1, and artifacts of the release candidates of OCI 1.1. It tells what a manifest is, for
// all other packages.
//
// A manifest is parsed once, and its parsed value is passed on. The reading is that of Go's
// clients and of the registry itself, which use encoding/json: names of fields are compared
// without regard to case, and of several fields with one name the last one wins. A document
// that other readers could read differently says so (Manifest.Ambiguous).
//
// # Guarantees
//
// The functions are pure, take any bytes and never panic. Unknown fields, and fields of another
// format, never prevent a manifest from being read.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's formats (distribution's former docs/spec/manifest-v2-2.md and
// manifest-v2-1.md). The OCI's are in imagespec.
const (
	MediaTypeDockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeSchema1            = "application/vnd.docker.distribution.manifest.v1+json"
	MediaTypeSchema1Signed      = "application/vnd.docker.distribution.manifest.v1+prettyjws"
	// MediaTypeArtifact was in release candidates of the image-spec's 1.1
	// (https://github.com/opencontainers/image-spec/blob/v1.1.0-rc2/artifact.md).
	MediaTypeArtifact     = "application/vnd.oci.artifact.manifest.v1+json"
	MediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"
)

// Manifest is a parsed manifest.
type Manifest struct {
	// Content is the manifest's exact bytes.
	Content []byte
	// MediaType is the manifest's format: one of the OCI's two, Docker's two, MediaTypeSchema1,
	// signed or not, or MediaTypeArtifact.
	MediaType string
	// Kind is what the manifest is.
	Kind Kind
	// ArtifactType is the manifest's own or, unless that is a container image's, the media
	// type of its config; "" for images.
	ArtifactType string
	// Config is nil if there is none, as in an index.
	Config *imagespec.Descriptor
	// Layers are those of an image or artifact. Those of MediaTypeArtifact are called blobs there.
	Layers []imagespec.Descriptor
	// Manifests are those that an index lists.
	Manifests []imagespec.Descriptor
	// History is that of schema 1, from the top layer down.
	History []Schema1Layer
	// Subject is the digest of the manifest that this one is about, "" if none.
	Subject digest.Digest
	// Annotations are those of the manifest itself.
	Annotations map[string]string
	// Ambiguous has the names of the fields that readers may read differently, sorted: fields
	// that are given more than once, such as "layers" or "config.digest", and those that
	// belong to another format, such as "manifests" in an image.
	Ambiguous []string
}

// Schema1Layer is a layer of schema 1 with its entry of the history.
type Schema1Layer struct {
	BlobSum         string
	V1Compatibility string
}

// ErrNotManifest is wrapped by the errors of Parse.
var ErrNotManifest = errors.New("not a manifest")

// document has the fields of all formats.
type document struct {
	SchemaVersion field[int]                    `json:"schemaVersion"`
	MediaType     field[string]                 `json:"mediaType"`
	ArtifactType  field[string]                 `json:"artifactType"`
	Config        field[*imagespec.Descriptor]  `json:"config"`
	Layers        field[[]imagespec.Descriptor] `json:"layers"`
	Blobs         field[[]imagespec.Descriptor] `json:"blobs"`
	Manifests     field[[]imagespec.Descriptor] `json:"manifests"`
	Subject       field[*imagespec.Descriptor]  `json:"subject"`
	Annotations   field[map[string]string]      `json:"annotations"`
	FSLayers      field[[]fsLayer]              `json:"fsLayers"`
	History       field[[]historyEntry]         `json:"history"`
}

type fsLayer struct {
	BlobSum string `json:"blobSum"`
}

type historyEntry struct {
	V1Compatibility string `json:"v1Compatibility"`
}

// field is a field that may have the wrong type.
type field[T any] struct {
	value T
	given bool // it is there, and not null
	err   error
}

// UnmarshalJSON implements json.Unmarshaler. encoding/json calls it for each occurrence, and
// merges a later value into an earlier one, as here.
func (f *field[T]) UnmarshalJSON(data []byte) error {
	f.given = !bytes.Equal(data, []byte("null"))
	if err := json.Unmarshal(data, &f.value); err != nil && f.err == nil {
		f.err = err
	}
	return nil
}

// lenient returns the value, or nothing if it has the wrong type.
func (f *field[T]) lenient() T {
	if f.err != nil {
		var none T
		return none
	}
	return f.value
}

// Parse parses content. mediaType is the media type that it came with, "" if there was none;
// the manifest's own counts more, and so do its fields if both contradict them. It fails, with
// ErrNotManifest, if content is not JSON, if it is of no known format, or if a field of its
// format has the wrong type.
func Parse(mediaType string, content []byte) (*Manifest, error) {
	var d document
	if err := json.Unmarshal(content, &d); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) { // of the whole; fields keep their errors to themselves
			err = fmt.Errorf("it is not a JSON object but a %s", wrongType.Value)
		}
		return nil, fmt.Errorf("%w: %w", ErrNotManifest, err)
	}
	format, err := d.format(mediaType)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotManifest, err)
	}
	m := &Manifest{Content: content, MediaType: format, Annotations: d.Annotations.lenient()}
	if subject := d.Subject.lenient(); subject != nil && subject.Digest.Validate() == nil {
		m.Subject = subject.Digest
	}
	m.ArtifactType = d.ArtifactType.lenient()
	if err := d.fill(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotManifest, err)
	}
	m.Kind = m.kind()
	m.Ambiguous = ambiguous(&d, m, content)
	return m, nil
}

// fill sets the fields of the manifest's format. Those of the others are not looked at.
func (d *document) fill(m *Manifest) error {
	switch {
	case IsIndex(m.MediaType):
		m.Manifests = d.Manifests.value
		return named("manifests", d.Manifests.err)
	case m.MediaType == MediaTypeSchema1:
		return d.fillSchema1(m)
	case m.MediaType == MediaTypeArtifact:
		m.Layers = d.Blobs.value
		return named("blobs", d.Blobs.err)
	}
	m.Config, m.Layers = d.Config.value, d.Layers.value
	if m.ArtifactType == "" && m.Config != nil && !IsImageConfig(m.Config.MediaType) {
		m.ArtifactType = m.Config.MediaType
	}
	return errors.Join(named("config", d.Config.err), named("layers", d.Layers.err))
}

func (d *document) fillSchema1(m *Manifest) error {
	if err := errors.Join(named("fsLayers", d.FSLayers.err), named("history", d.History.err)); err != nil {
		return err
	}
	layers, history := d.FSLayers.value, d.History.value
	if len(history) == 0 {
		return errors.New("history: it is empty")
	}
	if len(history) != len(layers) {
		return fmt.Errorf("history: it has %d entries for %d layers", len(history), len(layers))
	}
	for i := range layers {
		m.History = append(m.History, Schema1Layer{layers[i].BlobSum, history[i].V1Compatibility})
	}
	return nil
}

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// format returns the manifest's media type: its own, or the one that it came with, unless its
// fields show another.
func (d *document) format(cameWith string) (string, error) {
	if d.SchemaVersion.err != nil {
		return "", named("schemaVersion", d.SchemaVersion.err)
	}
	if base, _, err := mime.ParseMediaType(cameWith); err == nil {
		cameWith = base
	}
	declared := known(d.MediaType.lenient())
	if declared == "" {
		declared = known(cameWith)
	}
	image, index, schema1 := d.Config.given || d.Layers.given, d.Manifests.given, d.FSLayers.given || d.History.given
	if d.SchemaVersion.given && d.SchemaVersion.value != 1 && d.SchemaVersion.value != 2 {
		return "", fmt.Errorf("schemaVersion: it is %d, want 1 or 2", d.SchemaVersion.value)
	}
	switch {
	case declared == MediaTypeArtifact && !image && !index && !schema1: // it has no schemaVersion
		return declared, nil
	case !image && !index && !schema1: // nothing contradicts
		if declared == "" || !d.SchemaVersion.given {
			return "", errors.New("it has no config, layers or manifests")
		}
		return declared, nil
	case d.shows(declared):
		return declared, nil
	case index && !image:
		return imagespec.MediaTypeImageIndex, nil
	case image && d.Config.value != nil && d.Config.value.MediaType == MediaTypeDockerConfig:
		return MediaTypeDockerManifest, nil
	case image:
		return imagespec.MediaTypeImageManifest, nil
	}
	return MediaTypeSchema1, nil
}

// shows reports whether the fields have some of a format's.
func (d *document) shows(format string) bool {
	switch {
	case format == "":
		return false
	case IsIndex(format):
		return d.Manifests.given
	case format == MediaTypeSchema1:
		return d.FSLayers.given || d.History.given
	case format == MediaTypeArtifact:
		return false // with fields of another format it is of that one
	}
	return d.Config.given || d.Layers.given
}

// known returns the format of a media type, "" for other media types.
func known(mediaType string) string {
	switch mediaType {
	case MediaTypeSchema1, MediaTypeSchema1Signed:
		return MediaTypeSchema1 // as OpenShift: signed or not
	case MediaTypeDockerManifest, MediaTypeDockerManifestList, imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageIndex, MediaTypeArtifact:
		return mediaType
	}
	return ""
}

// IsIndex reports whether a manifest of this media type lists other manifests.
func IsIndex(mediaType string) bool {
	return mediaType == MediaTypeDockerManifestList || mediaType == imagespec.MediaTypeImageIndex
}

// HasConfig reports whether a manifest of this media type names a config.
func HasConfig(mediaType string) bool {
	return mediaType == MediaTypeDockerManifest || mediaType == imagespec.MediaTypeImageManifest
}

// IsImageConfig reports whether a config of this media type is a container image's.
func IsImageConfig(mediaType string) bool {
	return mediaType == imagespec.MediaTypeImageConfig || mediaType == MediaTypeDockerConfig || mediaType == ""
}

// IsIndex reports whether the manifest lists other manifests.
func (m *Manifest) IsIndex() bool { return IsIndex(m.MediaType) }

// Descriptor returns the descriptor called name as the referrers API has it
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers):
// the artifact type of an image manifest without one is the media type of its config.
func (m *Manifest) Descriptor(name digest.Digest) imagespec.Descriptor {
	d := imagespec.Descriptor{
		MediaType: m.MediaType, Digest: name, Size: int64(len(m.Content)), ArtifactType: m.ArtifactType, Annotations: m.Annotations,
	}
	if d.ArtifactType == "" && m.Config != nil {
		d.ArtifactType = m.Config.MediaType
	}
	return d
}
