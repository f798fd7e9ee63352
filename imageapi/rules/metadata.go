package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/openshift/api/image/docker10"
	"github.com/openshift/api/image/dockerpre012"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/signatures/manifest"
)

const (
	metadataGroup      = docker10.GroupName
	metadataVersion10  = "1.0"
	metadataVersionPre = "pre012"
	metadataKind       = "DockerImage"
)

var errMetadataVersion = errors.New(`only "1.0" and "pre012" are known`)

// NormalizeMetadata gives dockerImageMetadata the form in which OpenShift always shows it: a
// whole DockerImage of the version in dockerImageMetadataVersion. If the metadata cannot be
// read it fails and changes nothing.
func NormalizeMetadata(image *imagev1.Image) error {
	version := image.DockerImageMetadataVersion
	if version == "" {
		version = metadataVersion10
	}
	var typed any
	var typeMeta *metav1.TypeMeta
	switch strings.TrimPrefix(version, metadataGroup+"/") {
	case metadataVersion10:
		m := &docker10.DockerImage{}
		typed, typeMeta = m, &m.TypeMeta
	case metadataVersionPre:
		m := &dockerpre012.DockerImage{}
		typed, typeMeta = m, &m.TypeMeta
	default:
		return fmt.Errorf("version %q: %w", version, errMetadataVersion)
	}
	if raw := image.DockerImageMetadata.Raw; len(raw) > 0 {
		if err := json.Unmarshal(raw, typed); err != nil {
			return fmt.Errorf("not a %s: %w", metadataKind, err)
		}
	}
	bare := strings.TrimPrefix(version, metadataGroup+"/")
	if typeMeta.Kind != "" && typeMeta.Kind != metadataKind {
		return fmt.Errorf("no kind %q: want %s", typeMeta.Kind, metadataKind)
	}
	if sent := strings.TrimPrefix(typeMeta.APIVersion, metadataGroup+"/"); sent != "" && sent != bare {
		return fmt.Errorf("apiVersion %q with dockerImageMetadataVersion %q: want both the same", typeMeta.APIVersion, version)
	}
	*typeMeta = metav1.TypeMeta{Kind: metadataKind, APIVersion: metadataGroup + "/" + bare}
	raw, err := json.Marshal(typed)
	if err != nil {
		return err
	}
	image.DockerImageMetadata = runtime.RawExtension{Raw: raw}
	image.DockerImageMetadataVersion = version
	return nil
}

// Metadata returns dockerImageMetadata, zero if the image has none that can be
// read.
func Metadata(image *imagev1.Image) docker10.DockerImage {
	var m docker10.DockerImage
	if len(image.DockerImageMetadata.Raw) == 0 || json.Unmarshal(image.DockerImageMetadata.Raw, &m) != nil {
		return docker10.DockerImage{}
	}
	return m
}

// StampIndex gives an index that does not say when it was made the time at which
// its Image was made, which never changes. OpenShift writes the time of the last
// update.
func StampIndex(image *imagev1.Image) {
	if !manifest.IsIndex(image.DockerImageManifestMediaType) {
		return
	}
	m := Metadata(image)
	if m.ID == "" || !m.Created.IsZero() {
		return
	}
	m.Created = image.CreationTimestamp
	if raw, err := json.Marshal(m); err == nil {
		image.DockerImageMetadata.Raw = raw
	}
}
