package rest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"

	"tallyman/imageapi"
	"tallyman/imageapi/rules"
)

// ImageSignatures is the REST storage of the imagesignatures resource, which has create and
// delete only: the signatures are in their Image. It follows OpenShift's
// pkg/image/apiserver/registry/imagesignature, but honours dryRun and does not fail because
// another write to the Image comes first. A derived signature can be deleted in the registry
// only.
type ImageSignatures struct {
	images    *Images
	refresher Refresher
}

// Refresher makes the derived signatures of an Image those that the registry holds.
// catalog.Catalog is one.
type Refresher interface {
	RefreshSignatures(ctx context.Context, name digest.Digest) error
}

// NewImageSignatures returns the imagesignatures resource of images.
func NewImageSignatures(images *Images, r Refresher) *ImageSignatures {
	return &ImageSignatures{images, r}
}

var (
	_ rest.Creater              = (*ImageSignatures)(nil)
	_ rest.GracefulDeleter      = (*ImageSignatures)(nil)
	_ rest.Scoper               = (*ImageSignatures)(nil)
	_ rest.SingularNameProvider = (*ImageSignatures)(nil)
)

// signatureErrors names the resource in errors with the capital that OpenShift
// gives it.
var signatureErrors = schema.GroupResource{Group: imageapi.ImageSignatures.Group, Resource: "imageSignatures"}

// New implements rest.Storage.
func (*ImageSignatures) New() runtime.Object { return &imagev1.ImageSignature{} }

// Destroy implements rest.Storage.
func (*ImageSignatures) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*ImageSignatures) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (*ImageSignatures) GetSingularName() string { return "imagesignature" }

// Create implements rest.Creater: it adds the signature to its Image.
func (r *ImageSignatures) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	signature := obj.(*imagev1.ImageSignature)
	// Verification belongs to the server, so it is part of the write.
	signature.Conditions, signature.ImageIdentity, signature.SignedClaims = nil, "", nil
	signature.Created, signature.IssuedBy, signature.IssuedTo = nil, nil, nil
	if err := prepareSignature(signature); err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, signature); err != nil {
			return nil, err
		}
	}
	imageName, _ := rules.SignedImage(signature.Name)
	stored, err := r.images.change(ctx, r.images.Store, imageName, false, options.DryRun, func(_ context.Context, image *imagev1.Image) error {
		if findSignature(image, signature) != nil {
			return apierrors.NewAlreadyExists(signatureErrors, signature.Name)
		}
		appendSignature(image, signature)
		return nil
	})
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(stored.Signatures, func(s imagev1.ImageSignature) bool { return s.Name == signature.Name })
	if at < 0 {
		return signature, nil // deleted since
	}
	return &stored.Signatures[at], nil
}

// findSignature returns the entry of image with the name or the content of s, nil if there is none.
func findSignature(image *imagev1.Image, s *imagev1.ImageSignature) *imagev1.ImageSignature {
	at := slices.IndexFunc(image.Signatures, func(old imagev1.ImageSignature) bool {
		return old.Name == s.Name || (old.Type == s.Type && bytes.Equal(old.Content, s.Content))
	})
	if at < 0 {
		return nil
	}
	return &image.Signatures[at]
}

func appendSignature(image *imagev1.Image, s *imagev1.ImageSignature) {
	added := s.DeepCopy()
	added.TypeMeta = metav1.TypeMeta{} // the Image has it
	image.Signatures = append(image.Signatures, *added)
}

// Put adds a signature that a client has put into a repository: it leaves with the repository, or
// with the last one of several that have the same. Its errors are those of Create.
func (r *ImageSignatures) Put(ctx context.Context, repository string, signature *imagev1.ImageSignature) error {
	if err := prepareSignature(signature); err != nil {
		return err
	}
	imageName, _ := rules.SignedImage(signature.Name)
	_, err := r.images.change(internal(ctx), r.images.registry, imageName, false, nil, func(_ context.Context, image *imagev1.Image) error {
		before := image.DeepCopy()
		if !slices.Contains(rules.Repositories(image), repository) && image.Annotations[rules.AnnotationTruncated] != "true" {
			return apierrors.NewNotFound(imageapi.Images, imageName)
		}
		switch old := findSignature(image, signature); {
		case old == nil:
			appendSignature(image, signature)
			rules.AddSignatureRepository(&image.Signatures[len(image.Signatures)-1], repository)
		case old.Type != signature.Type || !bytes.Equal(old.Content, signature.Content),
			len(rules.SignatureRepositories(old)) == 0, slices.Contains(rules.SignatureRepositories(old), repository):
			return apierrors.NewAlreadyExists(signatureErrors, signature.Name)
		default:
			rules.AddSignatureRepository(old, repository)
		}
		if errs := rules.ValidateRepositorySignature(image, before, repository); len(errs) > 0 {
			return invalidSignature(signature, errs)
		}
		return nil
	})
	return err
}

// prepareSignature gives a new signature its uid, and checks it.
func prepareSignature(s *imagev1.ImageSignature) error {
	rest.FillObjectMetaSystemFields(s)
	if errs := rules.ValidateSignature(s, nil); len(errs) > 0 {
		return invalidSignature(s, errs)
	}
	return nil
}

func invalidSignature(s *imagev1.ImageSignature, errs field.ErrorList) error {
	return apierrors.NewInvalid(imagev1.GroupVersion.WithKind("ImageSignature").GroupKind(), s.Name, errs)
}

// Delete implements rest.GracefulDeleter: it takes the signature off its Image.
func (r *ImageSignatures) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	imageName, ok := rules.SignedImage(name)
	if !ok {
		return nil, false, apierrors.NewBadRequest("ImageSignatures must be accessed with <imageName>@<signatureName>")
	}
	_, err := r.images.change(ctx, r.images.Store, imageName, false, options.DryRun, func(ctx context.Context, image *imagev1.Image) error {
		at := slices.IndexFunc(image.Signatures, func(s imagev1.ImageSignature) bool { return s.Name == name })
		if at < 0 {
			return apierrors.NewNotFound(signatureErrors, name)
		}
		if err := checkPreconditions(image, &image.Signatures[at], options.Preconditions); err != nil {
			return err
		}
		if validate != nil {
			if err := validate(ctx, &image.Signatures[at]); err != nil {
				return err
			}
		}
		if rules.IsDerived(image, &image.Signatures[at]) {
			return apierrors.NewForbidden(signatureErrors, name, errDerivedSignature)
		}
		image.Signatures = slices.Delete(image.Signatures, at, at+1)
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	if len(options.DryRun) == 0 {
		// The registry may hold the same signature.
		if err := r.refresher.RefreshSignatures(ctx, digest.Digest(imageName)); err != nil {
			slog.WarnContext(ctx, "signatures not refreshed", "digest", imageName, "err", err)
		}
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, true, nil
}

var errDerivedSignature = errors.New("the registry holds it; delete it there, with cosign clean or by deleting its manifest")

// checkPreconditions compares the uid of the signature, and the resourceVersion of the Image that
// it is in: it has none of its own.
func checkPreconditions(image *imagev1.Image, s *imagev1.ImageSignature, p *metav1.Preconditions) error {
	switch {
	case p == nil:
	case p.UID != nil && *p.UID != s.UID:
		return apierrors.NewConflict(signatureErrors, s.Name,
			fmt.Errorf("precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, s.UID))
	case p.ResourceVersion != nil && *p.ResourceVersion != image.ResourceVersion:
		return apierrors.NewConflict(signatureErrors, s.Name,
			fmt.Errorf("precondition failed: ResourceVersion in precondition: %v, ResourceVersion of the image: %v", *p.ResourceVersion, image.ResourceVersion))
	}
	return nil
}
