package rules

import (
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/derive"
	"tallyman/signatures/manifest"
)

// Content is an Image's own manifest and config, and the Image that they make. It remembers
// its results, so that one write parses and derives once. The zero value is ready for use, by
// one goroutine.
type Content struct {
	text, mediaType string
	manifest        *manifest.Manifest
	manifestErr     error
	parsed          bool

	config, name string
	derived      *imagev1.Image
	derivedErr   error
	done         bool

	// Parses and Derivations count the work that was done.
	Parses, Derivations int
}

// Manifest parses the image's manifest.
func (c *Content) Manifest(image *imagev1.Image) (*manifest.Manifest, error) {
	if !c.parsed || c.text != image.DockerImageManifest || c.mediaType != image.DockerImageManifestMediaType {
		*c = Content{text: image.DockerImageManifest, mediaType: image.DockerImageManifestMediaType, Parses: c.Parses + 1, Derivations: c.Derivations}
		c.manifest, c.manifestErr = manifest.Parse(c.mediaType, []byte(c.text))
		c.parsed = true
	}
	return c.manifest, c.manifestErr
}

// Derive derives an Image from the image's manifest and config. It fails if the image's name
// is a digest and not the manifest's.
func (c *Content) Derive(image *imagev1.Image) (*imagev1.Image, error) {
	m, err := c.Manifest(image)
	if err != nil {
		return nil, err
	}
	if c.done && c.config == image.DockerImageConfig && c.name == image.Name {
		return c.derived, c.derivedErr
	}
	in := derive.Input{Manifest: m}
	if image.DockerImageConfig != "" {
		in.Config = []byte(image.DockerImageConfig)
	}
	if name := digest.Digest(image.Name); name.Validate() == nil {
		in.Digest = name
	}
	c.config, c.name, c.done = image.DockerImageConfig, image.Name, true
	c.derived, c.derivedErr = derive.Image(in)
	c.Derivations++
	return c.derived, c.derivedErr
}

// Check returns the reason why the image's manifest or config is invalid, if it has one.
func (c *Content) Check(image *imagev1.Image) error {
	if image.DockerImageManifest == "" {
		return nil
	}
	_, err := c.Derive(image)
	return err
}

// Fill takes over the fields that the image's manifest and config make. Without a valid
// manifest nothing is changed. Two fields of the client are better than derived ones: metadata
// when there is no config, and the layer sizes of schema 1, which its manifest lacks.
func (c *Content) Fill(image *imagev1.Image) {
	derived, err := c.Derive(image)
	if err != nil {
		return
	}
	sent, schema1 := Metadata(image), derived.DockerImageManifestMediaType == manifest.MediaTypeSchema1
	if schema1 && len(image.DockerImageLayers) > 0 && sent.Size > 0 {
		image.DockerImageManifestMediaType = derived.DockerImageManifestMediaType
		c.mediaType = derived.DockerImageManifestMediaType // of the same manifest
		return
	}
	if image.DockerImageConfig != "" || schema1 || manifest.IsIndex(derived.DockerImageManifestMediaType) || sent.ID == "" {
		image.DockerImageMetadata = derived.DockerImageMetadata
		image.DockerImageMetadataVersion = derived.DockerImageMetadataVersion
	}
	TakeContent(image, derived)
	c.mediaType = derived.DockerImageManifestMediaType
}

// TakeContent takes over the derived fields about content, except the metadata and the texts
// of manifest and config with their places: a client's Image and the registry's differ in
// them.
func TakeContent(image, derived *imagev1.Image) {
	image.DockerImageManifestMediaType = derived.DockerImageManifestMediaType
	image.DockerImageLayers = derived.DockerImageLayers
	image.DockerImageManifests = derived.DockerImageManifests
	if image.Annotations == nil {
		image.Annotations = map[string]string{}
	}
	if derived.Annotations[derive.AnnotationAmbiguous] == "" {
		delete(image.Annotations, derive.AnnotationAmbiguous)
	}
	for key, value := range derived.Annotations {
		if key != derive.AnnotationBlobStored {
			image.Annotations[key] = value
		}
	}
}

// ProtectContent keeps a client from changing the description of derived content. OpenShift
// allows it.
func ProtectContent(image, before *imagev1.Image) {
	if before.Annotations[AnnotationOrigin] != OriginRegistry && before.DockerImageManifest == "" {
		return
	}
	image.DockerImageManifestMediaType = before.DockerImageManifestMediaType
	image.DockerImageManifests = before.DockerImageManifests
}

// RestoreManifest lets a client clear manifest and config, and set them to content with the
// digests in the image's name and in the manifest; nothing else.
func (c *Content) RestoreManifest(image, before *imagev1.Image) {
	if isSet(image.DockerImageManifest, before.DockerImageManifest) && !c.isNamed(image) {
		image.DockerImageManifest = before.DockerImageManifest
	}
	if isSet(image.DockerImageConfig, before.DockerImageConfig) && !c.hasConfig(image) {
		image.DockerImageConfig = before.DockerImageConfig
	}
	if isSet(image.DockerImageManifest, before.DockerImageManifest) || isSet(image.DockerImageConfig, before.DockerImageConfig) {
		c.Fill(image)
	}
}

// isSet reports that a client has set a text to something new.
func isSet(text, before string) bool { return text != "" && text != before }

// isNamed reports whether the image's name is the digest of its manifest.
func (c *Content) isNamed(image *imagev1.Image) bool {
	name := digest.Digest(image.Name)
	m, err := c.Manifest(image)
	return err == nil && name.Validate() == nil && m.Digest(name.Algorithm()) == name
}

// hasConfig reports whether the image's config is the one that its manifest names.
func (c *Content) hasConfig(image *imagev1.Image) bool {
	m, err := c.Manifest(image)
	return err == nil && c.isNamed(image) && m.Config != nil && m.Config.Digest.Validate() == nil &&
		m.Config.Digest.Algorithm().FromString(image.DockerImageConfig) == m.Config.Digest
}

// RemoveOwnAnnotations removes the annotations that belong to the server.
func RemoveOwnAnnotations(image *imagev1.Image) {
	for key := range image.Annotations {
		if strings.HasPrefix(key, AnnotationPrefix) {
			delete(image.Annotations, key)
		}
	}
}

// RestoreOwnAnnotations gives image the annotations of before that belong to the server, and
// no others of them. Two of OpenShift's belong to it too: the order of layers where they are
// derived, and the mark of an image that a repository holds.
func RestoreOwnAnnotations(image, before *imagev1.Image) {
	RemoveOwnAnnotations(image)
	own := map[string]bool{
		derive.AnnotationLayersOrder: before.Annotations[AnnotationOrigin] == OriginRegistry || before.DockerImageManifest != "",
		AnnotationManaged:            len(Repositories(before)) > 0,
	}
	for key, value := range before.Annotations {
		if strings.HasPrefix(key, AnnotationPrefix) || own[key] {
			if image.Annotations == nil {
				image.Annotations = map[string]string{}
			}
			image.Annotations[key] = value
		}
	}
}
