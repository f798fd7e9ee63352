package rest

import (
	"context"
	"errors"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"tallyman/imageapi/derive"
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
	// outside has the verifications that are there.
	outside *outside
	// bounds are those of derived signatures, nil if they are as they were.
	bounds *rules.SignatureBounds
	// unverified has the signatures to verify before the write can be made; nil if there are none.
	unverified *imagev1.Image
}

type writeKey struct{}

type mergedSignaturesKey struct{}

// WithMergedSignatures makes an update with ctx merge the signatures of the Image that it is given
// with those that are there, by name, instead of replacing them.
func WithMergedSignatures(ctx context.Context) context.Context {
	return context.WithValue(ctx, mergedSignaturesKey{}, true)
}

type boundsKey struct{}

// WithSignatureBounds makes writes with ctx keep the derived signatures that fit into bounds, those
// that are trusted first.
func WithSignatureBounds(ctx context.Context, bounds rules.SignatureBounds) context.Context {
	return context.WithValue(ctx, boundsKey{}, &bounds)
}

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
	ambiguous                   string // fields of the manifest
}

// verify makes the verification of an image.
func verify(v Verifier, image *imagev1.Image) *verification {
	result := &verification{before: image.Signatures, repositories: rules.Repositories(image), tags: rules.Tags(image), ambiguous: image.Annotations[derive.AnnotationAmbiguous]}
	verified := image.DeepCopy()
	result.trusted = v.Verify(verified, result.repositories, result.tags)
	result.after = verified.Signatures
	return result
}

// covers reports whether v is the verification of an image.
func (v *verification) covers(image *imagev1.Image) bool {
	return v != nil && v.ambiguous == image.Annotations[derive.AnnotationAmbiguous] && slices.Equal(v.repositories, rules.Repositories(image)) && slices.Equal(v.tags, rules.Tags(image)) &&
		slices.EqualFunc(v.before, image.Signatures, func(a, b imagev1.ImageSignature) bool {
			a.UID = b.UID // may be given anew in each attempt
			return rules.EqualSignatures(&a, &b)
		})
}

// apply writes the results on an image that v covers.
func (v *verification) apply(image *imagev1.Image) {
	for i := range image.Signatures {
		uid := image.Signatures[i].UID
		v.after[i].DeepCopyInto(&image.Signatures[i])
		image.Signatures[i].UID = uid
	}
	rules.SetTrusted(image, v.trusted)
}

// maxAttempts bounds how often the signatures of one write are verified: each time that another
// write has changed them meanwhile.
const maxAttempts = 64

// errUnverified prevents the write of an Image with signatures that are not verified.
var errUnverified = errors.New("the signatures have to be verified first")

// perform makes one write by fn. Verification may take long, so it takes place between two calls of
// fn: no transaction of the store waits for it. fn is called again only if it returned an error,
// and wrote nothing. Within VerifyOutside that is left to the caller.
func perform[T any](ctx context.Context, v Verifier, fn func(context.Context) (T, error)) (result T, err error) {
	w := &write{}
	w.bounds, _ = ctx.Value(boundsKey{}).(*rules.SignatureBounds)
	once := func(ctx context.Context) error {
		w.outside, _ = ctx.Value(outsideKey{}).(*outside)
		w.unverified = nil
		if result, err = fn(context.WithValue(ctx, writeKey{}, w)); err != nil && w.unverified != nil {
			w.outside.unverified = w.unverified
		}
		return err
	}
	if ctx.Value(outsideKey{}) != nil {
		err = once(ctx)
	} else {
		err = verifyOutside(ctx, v, once)
	}
	return result, err
}

// outside has the verifications for writes that do not wait for them.
type outside struct {
	verified   map[string]*verification // by the name of the Image
	unverified *imagev1.Image
}

type outsideKey struct{}

// VerifyOutside calls fn, which takes locks, writes Images with the context that it is given, and
// frees the locks. A write in fn of signatures that are not verified fails; they are verified
// after fn has returned, and fn is called again. So no lock is held for as long as signatures say.
func (i *Images) VerifyOutside(ctx context.Context, fn func(context.Context) error) error {
	return verifyOutside(ctx, i.verifier, fn)
}

func verifyOutside(ctx context.Context, v Verifier, fn func(context.Context) error) error {
	o := &outside{verified: map[string]*verification{}}
	ctx = context.WithValue(ctx, outsideKey{}, o)
	for attempt := 1; ; attempt++ {
		o.unverified = nil
		err := fn(ctx)
		if o.unverified == nil || ctx.Err() != nil || attempt == maxAttempts {
			return err
		}
		o.verified[o.unverified.Name] = verify(v, o.unverified)
	}
}

// applyVerification writes the results of the verification on the image. An image whose
// signatures are not verified yet is noted, and must not be written.
func (w *write) applyVerification(v Verifier, image *imagev1.Image) {
	w.unverified = nil
	if v == nil {
		w.trim(image)
		return
	}
	if len(image.Signatures) == 0 {
		rules.SetList(image, rules.AnnotationTrusted, nil)
		return
	}
	if w.outside != nil {
		if known := w.outside.verified[image.Name]; known.covers(image) {
			known.apply(image)
			w.trim(image)
			return
		}
	}
	w.unverified = image.DeepCopy()
}

// trim leaves the derived signatures that the Image can have.
func (w *write) trim(image *imagev1.Image) {
	if w.bounds != nil {
		rules.TrimDerived(image, *w.bounds)
	}
}

// refuseUnverified is the last step of validation.
func (w *write) refuseUnverified(errs field.ErrorList) field.ErrorList {
	if w.unverified != nil && len(errs) == 0 {
		return field.ErrorList{field.InternalError(field.NewPath("signatures"), errUnverified)}
	}
	return errs
}
