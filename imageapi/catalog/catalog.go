// Package catalog is the registry's way in: it records manifests, tags and referrers as Images
// with their signatures.
//
// # Guarantees
//
// Every change keeps the additions of users. After a change of a referrer, the signatures of
// its subject's Image are those that the repositories hold.
package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi"
	"tallyman/imageapi/derive"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/signatures/manifest"
	"tallyman/storage"
)

// ErrTerminating is the error of a change of an Image that waits for its finalizers to be deleted.
// The change is made, and has to be made again once the Image is gone.
var ErrTerminating = errors.New("the image is being deleted")

// Push is a manifest that a repository holds now.
type Push struct {
	Repository string
	Digest     digest.Digest
	Manifest   *manifest.Manifest
	// Config is nil if it is not to be had.
	Config []byte
	// Host is the registry's own host[:port] for pull references.
	Host string
}

// Options configures New.
type Options struct {
	// Backend keeps the Images and referrers. Required.
	Backend storage.Backend
	// Images is the images resource on Backend. Required.
	Images *rest.Images
	// Referrers are the referrers on Backend. Required.
	Referrers *referrers.Store
	// InlineLimit is how many bytes manifest and config may have together to be
	// kept in an Image; see derive.Input.
	InlineLimit int64
	// Signatures says which signatures get onto Images.
	Signatures SignatureOptions
}

// Catalog is the registry's way in. It is safe for concurrent use.
type Catalog struct {
	backend     storage.Backend
	images      *rest.Images
	referrers   *referrers.Store
	inlineLimit int64
	signatures  SignatureOptions
}

// New returns a Catalog.
func New(o Options) *Catalog {
	o.Signatures.complete()
	return &Catalog{backend: o.Backend, images: o.Images, referrers: o.Referrers, inlineLimit: o.InlineLimit, signatures: o.Signatures}
}

// Derive returns the Image that p makes, without storing it. It is the part of
// Record that is about content only.
func (c *Catalog) Derive(p Push) (*imagev1.Image, error) {
	return derive.Image(derive.Input{
		Manifest: p.Manifest, Config: p.Config, Digest: p.Digest, InlineLimit: c.inlineLimit,
		Reference: pullReference(p.Host, p.Repository, p.Digest.String()),
	})
}

// pullReference leaves the host out if a reference cannot have it: a client may
// reach the registry by a name that the grammar of references does not allow, such
// as one with an underscore.
func pullReference(host, repository, name string) string {
	bare := repository + "@" + name
	if host == "" {
		return bare
	}
	full := host + "/" + bare
	if _, err := reference.ParseNormalizedNamed(full); err != nil {
		return bare
	}
	return full
}

// Record stores derived, which came from Derive(p): it creates the Image, or updates the
// derived fields and keeps the additions of users. It fails with ErrTerminating.
func (c *Catalog) Record(ctx context.Context, p Push, derived *imagev1.Image) error {
	terminating := false
	ctx = rest.WithAccount(ctx, p.Repository)
	err := c.overwrite(ctx, p.Digest, true, func(image *imagev1.Image) error {
		terminating = image.DeletionTimestamp != nil
		if image.Name == "" {
			derived.DeepCopyInto(image)
			image.Annotations[rules.AnnotationOrigin] = rules.OriginRegistry
		} else {
			refresh(image, derived)
		}
		image.Annotations[rules.AnnotationManaged] = "true"
		rules.AddRepository(image, p.Repository)
		return nil
	})
	if err == nil && terminating {
		return ErrTerminating
	}
	return err
}

// refresh updates the derived fields of image.
func refresh(image, derived *imagev1.Image) {
	if image.DockerImageReference == "" || len(rules.Repositories(image)) == 0 && image.Annotations[rules.AnnotationOrigin] == rules.OriginRegistry {
		image.DockerImageReference = derived.DockerImageReference
	}
	// A later read of the registry may lack the config; then the stored fields are better.
	if derived.DockerImageConfig != "" || rules.Metadata(image).ID == "" || rules.Metadata(derived).Architecture != "" {
		image.DockerImageMetadata = derived.DockerImageMetadata
		image.DockerImageMetadataVersion = derived.DockerImageMetadataVersion
		image.DockerImageConfig = derived.DockerImageConfig
	}
	image.DockerImageManifest = derived.DockerImageManifest
	rules.TakeContent(image, derived)
	delete(image.Annotations, derive.AnnotationBlobStored)
	if stored, ok := derived.Annotations[derive.AnnotationBlobStored]; ok {
		image.Annotations[derive.AnnotationBlobStored] = stored
	}
}

// SetTag notes that repository's tag points to the manifest, or does not. If it
// points to a manifest of which there is no Image, or which the Image does not say
// that the repository holds, NotFound is returned. It fails with ErrTerminating.
func (c *Catalog) SetTag(ctx context.Context, repository, tag string, name digest.Digest, points bool) error {
	if !points {
		ctx = storage.WithRemoval(ctx)
	}
	terminating := false
	ctx = rest.WithAccount(ctx, repository)
	err := c.overwrite(ctx, name, false, func(image *imagev1.Image) error {
		terminating = image.DeletionTimestamp != nil
		if points && !slices.Contains(rules.Repositories(image), repository) {
			return apierrors.NewNotFound(imageapi.Images, name.String())
		}
		rules.SetTag(image, repository, tag, points)
		return nil
	})
	switch {
	case !points && apierrors.IsNotFound(err):
		return nil
	case err == nil && points && terminating:
		return ErrTerminating
	}
	return err
}

// Remove notes that repository no longer holds the manifest. The last repository
// takes an Image with it that exists only because the manifest was pushed; as
// with any deletion, finalizers on it are waited for.
func (c *Catalog) Remove(ctx context.Context, repository string, name digest.Digest) error {
	ctx = rest.WithAccount(storage.WithRemoval(ctx), repository)
	var orphan *imagev1.Image
	err := c.overwrite(ctx, name, false, func(image *imagev1.Image) error {
		orphan = nil
		// Without any repository it is an orphan that an earlier call could not delete.
		if held := rules.Repositories(image); len(held) > 0 && !slices.Contains(held, repository) {
			return nil
		}
		rules.RemoveRepository(image, repository)
		left := rules.Repositories(image)
		switch {
		case len(left) == 0 && image.Annotations[rules.AnnotationOrigin] == rules.OriginRegistry:
			orphan = image.DeepCopy()
		case len(left) == 0:
			delete(image.Annotations, rules.AnnotationManaged)
		default:
			moveReference(image, repository, left[0])
		}
		return nil
	})
	if err != nil || orphan == nil {
		return ignoreNotFound(err)
	}
	return c.deleteOrphan(ctx, orphan)
}

// moveReference makes a pull reference into from one into to.
func moveReference(image *imagev1.Image, from, to string) {
	rest := "/" + from + "@" + image.Name
	if host, ok := strings.CutSuffix(image.DockerImageReference, rest); ok {
		image.DockerImageReference = pullReference(host, to, image.Name)
	}
}

// deleteOrphan deletes the Image unless a push has brought it back meanwhile.
func (c *Catalog) deleteOrphan(ctx context.Context, orphan *imagev1.Image) error {
	return c.images.DeleteUnless(ctx, orphan.Name, orphan.UID, func(image *imagev1.Image) bool { return len(rules.Repositories(image)) > 0 })
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// RefreshSignatures updates the signatures of an Image, by the content of repositories and by the present
// policies. Without an Image there is nothing to do.
func (c *Catalog) RefreshSignatures(ctx context.Context, name digest.Digest) error {
	return ignoreNotFound(c.update(ctx, name, false, func(*imagev1.Image) error { return nil }))
}

// VerifyOutside calls fn, which takes locks, changes Images with the context that it is given, and
// frees the locks. It calls fn again when it has verified signatures that fn was to write.
func (c *Catalog) VerifyOutside(ctx context.Context, fn func(context.Context) error) error {
	return c.images.VerifyOutside(ctx, fn)
}

// ImagesByTag returns, for each tag (repository:tag) that an Image carries, the
// digests of the Images that do. It goes over all Images, page by page.
func (c *Catalog) ImagesByTag(ctx context.Context) (map[string][]digest.Digest, error) {
	holders := map[string][]digest.Digest{}
	err := c.images.Each(ctx, func(image *imagev1.Image) {
		for _, tag := range rules.Tags(image) {
			holders[tag] = append(holders[tag], digest.Digest(image.Name))
		}
	})
	return holders, err
}

// PutSignature adds a signature that a client has put into repository to the Image that its name
// starts with. It leaves with the repository. Its errors are those of the API: NotFound without the
// Image, AlreadyExists, Invalid.
func (c *Catalog) PutSignature(ctx context.Context, repository string, s *imagev1.ImageSignature) error {
	return rest.NewImageSignatures(c.images, c).Put(rest.WithAccount(ctx, repository), repository, s)
}

// Get returns the Image called name.
func (c *Catalog) Get(ctx context.Context, name digest.Digest) (*imagev1.Image, error) {
	return c.images.Image(ctx, name.String())
}

// Revision returns the current revision of the store.
func (c *Catalog) Revision(ctx context.Context) (int64, error) {
	window, err := c.backend.Window(ctx)
	return window.Current, err
}

// Advance raises the revision of the store to at least revision. Clients with an older
// resourceVersion of a lost history are told to list again.
func (c *Catalog) Advance(ctx context.Context, revision int64) error {
	return c.backend.Advance(ctx, revision)
}

// Ready reports whether Images can be written.
func (c *Catalog) Ready() error { return c.images.ReadinessCheck() }
