package rest

import (
	"context"
	"errors"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"tallyman/imageapi/rules"
)

// Verifier verifies the signatures of an Image. policy.Verifier is one.
type Verifier interface {
	// Verify writes the results of verification on the image's signatures, and returns the
	// repositories whose policy is satisfied. repositories hold the image; tags
	// (repository:tag) point to it.
	Verify(image *imagev1.Image, repositories, tags []string) (trusted []string)
}

// write is one write of an Image. The steps of a strategy share it through the context, and the
// store may go through them several times: when another write comes first, and after the
// signatures have been verified.
type write struct {
	content rules.Content
	// verified is the last result of the verification.
	verified *verification
	// unverified has the signatures to verify before the write can be made; nil if there are none.
	unverified *imagev1.Image
}

type writeKey struct{}

// writeOf returns the write that ctx belongs to, a new one outside of any.
func writeOf(ctx context.Context) *write {
	if w, ok := ctx.Value(writeKey{}).(*write); ok {
		return w
	}
	return &write{}
}

// verification is the result of verifying an image's signatures, with all that it depends on.
type verification struct {
	before, after               []imagev1.ImageSignature
	repositories, tags, trusted []string
}

// verify makes the verification of an image.
func verify(v Verifier, image *imagev1.Image) *verification {
	result := &verification{before: image.Signatures, repositories: rules.Repositories(image), tags: rules.Tags(image)}
	verified := image.DeepCopy()
	result.trusted = v.Verify(verified, result.repositories, result.tags)
	result.after = verified.Signatures
	return result
}

// covers reports whether v is the verification of an image.
func (v *verification) covers(image *imagev1.Image) bool {
	return v != nil && slices.Equal(v.repositories, rules.Repositories(image)) && slices.Equal(v.tags, rules.Tags(image)) &&
		slices.EqualFunc(v.before, image.Signatures, func(a, b imagev1.ImageSignature) bool {
			a.UID = b.UID // may be given anew in each attempt
			return equality.Semantic.DeepEqual(a, b)
		})
}

// apply writes the results on an image that v covers.
func (v *verification) apply(image *imagev1.Image) {
	for i := range image.Signatures {
		uid := image.Signatures[i].UID
		v.after[i].DeepCopyInto(&image.Signatures[i])
		image.Signatures[i].UID = uid
	}
	rules.SetList(image, rules.AnnotationTrusted, v.trusted)
}

// maxAttempts bounds how often the signatures of one write are verified: each time that another
// write has changed them meanwhile.
const maxAttempts = 64

// errUnverified prevents the write of an Image with signatures that are not verified.
var errUnverified = errors.New("the signatures have to be verified first")

// perform calls fn until the signatures that it writes are verified. Verification may take
// long, so it takes place between two calls: no lock and no transaction of the store waits for
// it. fn is called again only if it returned an error, and wrote nothing.
func perform[T any](ctx context.Context, v Verifier, fn func(context.Context) (T, error)) (T, error) {
	w := &write{}
	ctx = context.WithValue(ctx, writeKey{}, w)
	for attempt := 1; ; attempt++ {
		w.unverified = nil
		result, err := fn(ctx)
		if w.unverified == nil || err == nil || ctx.Err() != nil || attempt == maxAttempts {
			return result, err
		}
		w.verified = verify(v, w.unverified)
	}
}

// applyVerification writes the results of the verification on the image. An image whose
// signatures are not verified yet is noted, and must not be written.
func (w *write) applyVerification(v Verifier, image *imagev1.Image) {
	w.unverified = nil
	switch {
	case v == nil:
	case len(image.Signatures) == 0:
		rules.SetList(image, rules.AnnotationTrusted, nil)
	case w.verified.covers(image):
		w.verified.apply(image)
	default:
		w.unverified = image.DeepCopy()
	}
}

// refuseUnverified is the last step of validation.
func (w *write) refuseUnverified(errs field.ErrorList) field.ErrorList {
	if w.unverified != nil && len(errs) == 0 {
		return field.ErrorList{field.InternalError(field.NewPath("signatures"), errUnverified)}
	}
	return errs
}
