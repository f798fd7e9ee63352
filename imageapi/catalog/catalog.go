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

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/records"
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
	// Tag is a tag of the repository that points to the manifest, "" for none. From has the
	// manifests that it may have pointed to before.
	Tag  string
	From []digest.Digest
	// References are changes of referrers that come with it.
	References []Reference
}

// Options configures New.
type Options struct {
	// Backend keeps the Images and referrers. Required.
	Backend storage.Backend
	// Images is the images resource on Backend. Required.
	Images *rest.Images
	// Referrers are the referrers on Backend. Required.
	Referrers *referrers.Store
	// Records are the records on Backend. Nil means those with the defaults.
	Records *records.Store
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
	records     *records.Store
	inlineLimit int64
	signatures  SignatureOptions
}

// New returns a Catalog.
func New(o Options) *Catalog {
	o.Signatures.complete()
	if o.Records == nil {
		o.Records = records.New(records.Options{Backend: o.Backend})
	}
	return &Catalog{backend: o.Backend, images: o.Images, referrers: o.Referrers, records: o.Records, inlineLimit: o.InlineLimit, signatures: o.Signatures}
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

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
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

// Records returns the records that Images are a view of.
func (c *Catalog) Records() *records.Store { return c.records }

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
