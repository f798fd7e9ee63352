package derive

import (
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// manifest is the union of all manifest formats. It is read here and not with
// the registry's types, which know neither artifactType nor subject, and not
// schema 1.
type manifest struct {
	SchemaVersion int
	MediaType     string
	ArtifactType  string
	Config        *descriptor
	Layers        []descriptor
	Manifests     []descriptor
	Subject       *descriptor
	Annotations   map[string]string

	// Schema 1.
	FSLayers []struct {
		BlobSum string `json:"blobSum"`
	}
	History []struct {
		V1Compatibility string `json:"v1Compatibility"`
	}
	Signatures []json.RawMessage

	isIndex bool // it has a list of manifests, even an empty one
}

type descriptor struct {
	MediaType    string        `json:"mediaType"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	ArtifactType string        `json:"artifactType"`
	Platform     *platform     `json:"platform"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	OSVersion    string `json:"os.version"`
	Variant      string `json:"variant"`
}

// parseManifest reads each field by itself, by its exact name. Fields about content have to be
// valid. Fields about the manifest alone may be wrong, because registries that do not know
// them accept that.
func parseManifest(data []byte) (*manifest, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("not the JSON of a manifest: %w", err)
	}
	if fields == nil {
		return nil, fmt.Errorf("not the JSON of a manifest: it is null")
	}
	m := &manifest{}
	for name, into := range map[string]any{
		"schemaVersion": &m.SchemaVersion,
		"config":        &m.Config,
		"layers":        &m.Layers,
		"manifests":     &m.Manifests,
		"fsLayers":      &m.FSLayers,
		"history":       &m.History,
	} {
		raw, ok := fields[name]
		if !ok {
			continue
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return nil, fmt.Errorf("not a manifest: %s: %w", name, err)
		}
	}
	for name, into := range map[string]any{
		"mediaType":    &m.MediaType,
		"artifactType": &m.ArtifactType,
		"subject":      &m.Subject,
		"annotations":  &m.Annotations,
		"signatures":   &m.Signatures,
	} {
		lenient(fields[name], into)
	}
	_, m.isIndex = fields["manifests"]
	return m, nil
}

// lenient fills into with raw if raw fits, and leaves it alone otherwise.
func lenient[T any](raw json.RawMessage, into T) {
	if raw == nil {
		return
	}
	_ = json.Unmarshal(raw, into) // a field that does not fit is as good as absent
}

// artifactType follows the image-spec: the manifest's own, or, without a container image's
// config, the config's media type.
func (m *manifest) artifactType() string {
	if m.ArtifactType != "" || m.Config == nil {
		return m.ArtifactType
	}
	if isImageConfig(m.Config.MediaType) {
		return ""
	}
	return m.Config.MediaType
}

// subject returns the digest of the manifest that this one is about, "" if none.
func (m *manifest) subject() digest.Digest {
	if m.Subject == nil || m.Subject.Digest.Validate() != nil {
		return ""
	}
	return m.Subject.Digest
}
