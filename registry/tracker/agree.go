package tracker

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rules"
	"tallyman/registry/journal"
	"tallyman/signatures"
	"tallyman/signatures/manifest"
)

// HasManifest reports whether everything is recorded about a manifest that its repository holds.
func (t *Tracker) HasManifest(ctx context.Context, m journal.Entry) (bool, error) {
	image, err := t.options.Catalog.Get(ctx, m.Digest)
	if apierrors.IsNotFound(err) {
		return t.isWithoutImage(ctx, m)
	}
	if err != nil {
		return false, err
	}
	shown := slices.Contains(rules.Repositories(image), m.Repository) || t.findsHidden(ctx, image, m.Repository, "")
	return shown && !lacksConfig(image) && t.refers(ctx, m.Repository, image) && t.holds(ctx, m.Repository, m.Digest), nil
}

// isWithoutImage reports whether a manifest is recorded that is to have no Image, such as a signature.
func (t *Tracker) isWithoutImage(ctx context.Context, m journal.Entry) (bool, error) {
	holding, err := t.options.Catalog.Records().Holding(ctx, m.Repository, m.Digest)
	if err != nil || holding == nil || !holding.WithoutImage {
		return false, err
	}
	if holding.Subject == "" {
		return true, nil
	}
	return t.refersTo(ctx, m.Repository, m.Digest, holding.Subject)
}

// refersTo reports whether it is recorded that a manifest refers to subject.
func (t *Tracker) refersTo(ctx context.Context, repository string, name, subject digest.Digest) (bool, error) {
	known, err := t.options.Referrers.Get(ctx, &referrers.Referrer{Subject: subject, Repository: repository, Descriptor: imagespec.Descriptor{Digest: name}})
	return known != nil, err
}

// IsSetAside reports whether this version of the program cannot read a manifest, which is noted.
func (t *Tracker) IsSetAside(ctx context.Context, m journal.Entry) bool {
	aside, err := t.journal.IsSetAside(ctx, m, t.options.Version)
	return err == nil && aside
}

// HasTag reports whether everything is recorded about a tag that points to the manifest to.
func (t *Tracker) HasTag(ctx context.Context, repository, tag string, to digest.Digest) bool {
	recorded, known, err := t.options.Catalog.Records().Tag(ctx, repository, tag)
	if err != nil || !known || recorded != to {
		return false
	}
	if t.knowsTag(ctx, repository, tag, to) {
		return true
	}
	image, err := t.options.Catalog.Get(ctx, to)
	return err == nil && !refersByTag(tag) && (slices.Contains(rules.Tags(image), repository+":"+tag) || t.findsHidden(ctx, image, repository, tag))
}

// findsHidden reports whether an Image is found by a repository, or by a tag of it, that its annotations
// have no room for.
func (t *Tracker) findsHidden(ctx context.Context, image *imagev1.Image, repository, tag string) bool {
	if image.Annotations[rules.AnnotationTruncated] != "true" {
		return false
	}
	found, err := t.options.Catalog.Finds(ctx, repository, tag, digest.Digest(image.Name))
	return err == nil && found
}

// HasAllTags reports whether all tags of the registry are recorded: its records are complete, no older
// version makes changes without any, and no change waits to be recorded. A pull-through cache has the
// tags of another registry.
func (t *Tracker) HasAllTags(ctx context.Context) bool {
	if t.options.PullThrough || !t.Alone() {
		return false
	}
	if recorded, err := t.Recorded(ctx); err != nil || !recorded {
		return false
	}
	t.mu.Lock()
	unwritten := len(t.unwritten)
	t.mu.Unlock()
	waiting, err := t.journal.Files(ctx)
	return err == nil && len(waiting)+unwritten == 0
}

// holds reports whether it is recorded that the repository holds the manifest.
func (t *Tracker) holds(ctx context.Context, repository string, name digest.Digest) bool {
	holding, err := t.options.Catalog.Records().Holding(ctx, repository, name)
	return err == nil && holding != nil
}

// refers reports whether the referrers in the image's manifest are recorded, and the manifest
// itself has an Image.
func (t *Tracker) refers(ctx context.Context, repository string, image *imagev1.Image) bool {
	m, err := manifest.Parse(image.DockerImageManifestMediaType, []byte(image.DockerImageManifest))
	if err == nil && !m.HasImage() { // it may be too large to be in the Image
		return false
	}
	subject := digest.Digest(image.Annotations[derive.AnnotationSubject])
	if subject == "" {
		return true
	}
	known, err := t.refersTo(ctx, repository, digest.Digest(image.Name), subject)
	return err == nil && known
}

// refersByTag reports whether a tag is one that says something about the digest in its
// name.
func refersByTag(tag string) bool {
	_, signs := signatures.SignatureTag(tag)
	_, lists := signatures.ReferrersTag(tag)
	return signs || lists
}

// knowsTag reports whether the target of a signature's tag is recorded.
func (t *Tracker) knowsTag(ctx context.Context, repository, tag string, to digest.Digest) bool {
	subject, ok := signatures.SignatureTag(tag)
	if !ok {
		return false
	}
	known, err := t.options.Referrers.Get(ctx, &referrers.Referrer{Subject: subject, Repository: repository, Tag: tag})
	return err == nil && known != nil && known.Descriptor.Digest == to
}

// lacksConfig reports that an image was recorded before its config arrived,
// which happens in a pull-through cache.
func lacksConfig(image *imagev1.Image) bool {
	if !manifest.HasConfig(image.DockerImageManifestMediaType) || image.DockerImageConfig != "" ||
		image.Annotations[derive.AnnotationBlobStored] == "true" {
		return false
	}
	metadata := rules.Metadata(image)
	return metadata.Architecture == "" && metadata.Config == nil && metadata.Created.IsZero()
}
