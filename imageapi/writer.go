package imageapi

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tallyman/imageapi/derive"
	"tallyman/storage"
)

// Push is a manifest that a repository holds now.
type Push struct {
	Repository string
	Digest     digest.Digest
	MediaType  string
	Manifest   []byte
	// Config is nil if it is not to be had.
	Config []byte
	// Host is the registry's own host[:port] for pull references.
	Host string
}

// Writer is the registry's way to write Images. It goes through the same store
// and strategy as the API.
type Writer struct {
	images      *images
	inlineLimit int64
}

// NewWriter returns a Writer for a process that serves no API.
func NewWriter(backend storage.Backend, inlineLimit int64, o SignatureOptions) (*Writer, error) {
	images, err := newImages(backend, o)
	if err != nil {
		return nil, err
	}
	return &Writer{images: images, inlineLimit: inlineLimit}, nil
}

// internalContext is the context of a write that comes from no API request.
func internalContext(ctx context.Context) context.Context {
	return request.WithNamespace(asRegistry(ctx), "")
}

// Derive returns the Image that p makes, without storing it. It is the part of
// Record that is about content only.
func (w *Writer) Derive(p Push) (*imagev1.Image, error) {
	return derive.Image(derive.Input{
		MediaType: p.MediaType, Manifest: p.Manifest, Config: p.Config, Digest: p.Digest, InlineLimit: w.inlineLimit,
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
// derived fields and keeps the additions of users.
func (w *Writer) Record(ctx context.Context, p Push, derived *imagev1.Image) error {
	return w.overwrite(ctx, p.Digest, true, func(image *imagev1.Image) error {
		if image.Name == "" {
			derived.DeepCopyInto(image)
			image.Annotations[AnnotationOrigin] = originRegistry
		} else {
			refresh(image, derived)
		}
		image.Annotations[AnnotationManaged] = "true"
		addRepository(image, p.Repository)
		return nil
	})
}

// refresh updates the derived fields of image.
func refresh(image, derived *imagev1.Image) {
	if image.DockerImageReference == "" || len(Repositories(image)) == 0 && image.Annotations[AnnotationOrigin] == originRegistry {
		image.DockerImageReference = derived.DockerImageReference
	}
	// A later read of the registry may lack the config; then the stored fields are better.
	if derived.DockerImageConfig != "" || Metadata(image).ID == "" || Metadata(derived).Architecture != "" {
		image.DockerImageMetadata = derived.DockerImageMetadata
		image.DockerImageMetadataVersion = derived.DockerImageMetadataVersion
		image.DockerImageConfig = derived.DockerImageConfig
	}
	image.DockerImageManifest = derived.DockerImageManifest
	takeContent(image, derived)
	delete(image.Annotations, derive.AnnotationBlobStored)
	if stored, ok := derived.Annotations[derive.AnnotationBlobStored]; ok {
		image.Annotations[derive.AnnotationBlobStored] = stored
	}
}

// SetTag notes that repository's tag points to the manifest, or does not. If it
// points to a manifest of which there is no Image, or which the Image does not say
// that the repository holds, NotFound is returned.
func (w *Writer) SetTag(ctx context.Context, repository, tag string, name digest.Digest, points bool) error {
	if !points {
		ctx = storage.WithRemoval(ctx)
	}
	err := w.overwrite(ctx, name, false, func(image *imagev1.Image) error {
		if points && !slices.Contains(Repositories(image), repository) {
			return apierrors.NewNotFound(imagesResource, name.String())
		}
		setTag(image, repository, tag, points)
		return nil
	})
	if !points && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Remove notes that repository no longer holds the manifest. The last repository
// takes an Image with it that exists only because the manifest was pushed; as
// with any deletion, finalizers on it are waited for.
func (w *Writer) Remove(ctx context.Context, repository string, name digest.Digest) error {
	ctx = storage.WithRemoval(ctx)
	var orphan *imagev1.Image
	err := w.overwrite(ctx, name, false, func(image *imagev1.Image) error {
		orphan = nil
		// Without any repository it is an orphan that an earlier call could not delete.
		if held := Repositories(image); len(held) > 0 && !slices.Contains(held, repository) {
			return nil
		}
		removeRepository(image, repository)
		left := Repositories(image)
		switch {
		case len(left) == 0 && image.Annotations[AnnotationOrigin] == originRegistry:
			orphan = image.DeepCopy()
		case len(left) == 0:
			delete(image.Annotations, AnnotationManaged)
		default:
			moveReference(image, repository, left[0])
		}
		return nil
	})
	if err != nil || orphan == nil {
		return ignoreNotFound(err)
	}
	return w.deleteOrphan(ctx, orphan)
}

// moveReference makes a pull reference into from one into to.
func moveReference(image *imagev1.Image, from, to string) {
	rest := "/" + from + "@" + image.Name
	if host, ok := strings.CutSuffix(image.DockerImageReference, rest); ok {
		image.DockerImageReference = pullReference(host, to, image.Name)
	}
}

// deleteOrphan deletes the Image unless a push has brought it back meanwhile.
func (w *Writer) deleteOrphan(ctx context.Context, orphan *imagev1.Image) error {
	ctx = internalContext(ctx)
	unlessHeld := func(_ context.Context, obj runtime.Object) error {
		if image, ok := obj.(*imagev1.Image); ok && len(Repositories(image)) > 0 {
			return errHeld
		}
		return nil
	}
	_, _, err := w.images.Delete(ctx, orphan.Name, unlessHeld, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &orphan.UID}})
	if apierrors.IsConflict(err) || errors.Is(err, errHeld) {
		return nil
	}
	return ignoreNotFound(err)
}

var errHeld = errors.New("a repository holds the manifest")

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// overwrite is update for callers that derive a missing Image again. It deletes a corrupt
// Image first.
func (w *Writer) overwrite(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error {
	err := w.update(ctx, name, create, change)
	if !apierrors.IsInternalError(err) {
		return err
	}
	if discarded, discardErr := w.images.discardCorrupt(internalContext(ctx), name.String()); discardErr != nil || !discarded {
		return errors.Join(err, discardErr)
	}
	slog.Warn("corrupt image replaced", "image", name, "err", err)
	return w.update(ctx, name, create, change)
}

// update applies change to the Image called name, and brings its signatures up to
// date, in one atomic step. With create, an Image that does not exist is presented
// empty.
func (w *Writer) update(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) error {
	signed, err := w.updateOnce(ctx, name, create, change)
	for err == nil && signed {
		// Referrers may have changed between our read and our write, so read them once more. A
		// writer that changes them after this second read refreshes the signatures itself.
		signed, err = w.updateOnce(ctx, name, false, func(*imagev1.Image) error { return nil })
	}
	return err
}

// updateOnce reports whether the derived signatures have changed.
func (w *Writer) updateOnce(ctx context.Context, name digest.Digest, create bool, change func(*imagev1.Image) error) (signed bool, err error) {
	ctx = internalContext(ctx)
	_, err = w.images.change(ctx, name.String(), create, nil, func(image *imagev1.Image) error {
		err := change(image)
		if err == nil {
			signed, err = w.images.mergeSignatures(ctx, image)
		}
		return err
	})
	return signed && err == nil, err
}

// RefreshSignatures updates the signatures of an Image, by the content of repositories and by the present
// policies. Without an Image there is nothing to do.
func (w *Writer) RefreshSignatures(ctx context.Context, name digest.Digest) error {
	return ignoreNotFound(w.update(ctx, name, false, func(*imagev1.Image) error { return nil }))
}

// ImagesByTag returns, for each tag (repository:tag) that an Image carries, the
// digests of the Images that do. It goes over all Images, page by page.
func (w *Writer) ImagesByTag(ctx context.Context) (map[string][]digest.Digest, error) {
	holders := map[string][]digest.Digest{}
	for options := (&internalversion.ListOptions{Limit: 500}); ; {
		obj, err := w.images.List(internalContext(ctx), options)
		if err != nil {
			return nil, err
		}
		list := obj.(*imagev1.ImageList)
		for i := range list.Items {
			for _, tag := range Tags(&list.Items[i]) {
				holders[tag] = append(holders[tag], digest.Digest(list.Items[i].Name))
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return holders, nil
		}
	}
}

// Get returns the Image called name.
func (w *Writer) Get(ctx context.Context, name digest.Digest) (*imagev1.Image, error) {
	return w.images.getDecoded(internalContext(ctx), name.String())
}

// Revision returns the current revision of the store.
func (w *Writer) Revision(ctx context.Context) (int64, error) {
	window, err := w.images.backend.Window(ctx)
	return window.Current, err
}

// Advance raises the revision of the store to at least revision. Clients with an older
// resourceVersion of a lost history are told to list again.
func (w *Writer) Advance(ctx context.Context, revision int64) error {
	return w.images.backend.Advance(ctx, revision)
}

// Ready reports whether Images can be written.
func (w *Writer) Ready() error { return w.images.encoded.ReadinessCheck() }
