package rest

import (
	"context"
	"errors"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"tallyman/imageapi"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// write is one write of an Image. The steps of a strategy share it through the context, and the
// store may go through them several times: when another write comes first, and after the
// signatures have been verified.
type write struct {
	content rules.Content
	// full is set if all signatures are to be verified again.
	full bool
	// outside has the verifications that are there.
	outside *outside
	// bounds are those of derived signatures, nil if they are as they were.
	bounds *rules.SignatureBounds
	// unverified has the signatures to verify before the write can be made; nil if there are none.
	unverified *VerifyRequest
	// condition is that of the verdict that is being written; nil for none.
	condition *storage.Mutation
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

// maxAttempts bounds how often the signatures of one write are verified: each time that another
// write has changed them meanwhile.
const maxAttempts = 64

// errOutdated is the error of a write that found other policies in force at each attempt.
var errOutdated = apierrors.NewConflict(imageapi.Images, "", errors.New("the signature policies in force have changed meanwhile; try again"))

// errUnverified prevents the write of an Image with signatures that are not verified.
var errUnverified = errors.New("the signatures have to be verified first")

// perform makes one write by fn. Verification may take long, so it takes place between two calls of
// fn: no transaction of the store waits for it. fn is called again only if it returned an error,
// and wrote nothing. Within VerifyOutside that is left to the caller.
func perform[T any](ctx context.Context, v Verifier, fn func(context.Context) (T, error)) (result T, err error) {
	w := &write{full: ctx.Value(fullKey{}) != nil}
	w.bounds, _ = ctx.Value(boundsKey{}).(*rules.SignatureBounds)
	once := func(ctx context.Context) error {
		w.outside, _ = ctx.Value(outsideKey{}).(*outside)
		w.unverified, w.condition = nil, nil
		written := storage.WithConditions(context.WithValue(ctx, writeKey{}, w), w.conditions)
		result, err = fn(written)
		switch {
		case err != nil && w.unverified != nil:
			w.unverified.Account, w.unverified.Full = accountOf(ctx), w.full
			w.outside.unverified = w.unverified
		case errors.Is(err, storage.ErrConditionFailed):
			w.outside.outdated = true
			err = errOutdated
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
	verified   map[string][]*verification // the last ones, by the name of the Image
	unverified *VerifyRequest
	outdated   bool // the verifications are not to be written any more
}

type outsideKey struct{}

// VerifyOutside calls fn, which takes locks, writes Images with the context that it is given, and
// frees the locks. A write in fn of signatures that are not verified fails; they are verified
// after fn has returned, and fn is called again. So no lock is held for as long as signatures say.
// Within another VerifyOutside it is that one that does so.
func (i *Images) VerifyOutside(ctx context.Context, fn func(context.Context) error) error {
	if ctx.Value(outsideKey{}) != nil {
		return fn(ctx)
	}
	return verifyOutside(ctx, i.verifier, fn)
}

// Together makes the writes of fn one commit. fn is called again when another write came first.
func (i *Images) Together(ctx context.Context, fn func(context.Context) error) error {
	return i.VerifyOutside(ctx, func(ctx context.Context) error {
		for range maxAttempts {
			batch := &storage.Batch{}
			if err := fn(storage.WithBatch(ctx, batch)); err != nil {
				return err
			}
			committed, err := i.encoded.CommitBatch(ctx, batch)
			if errors.Is(err, storage.ErrConditionFailed) {
				ctx.Value(outsideKey{}).(*outside).outdated = true
				return errOutdated
			}
			if committed || err != nil {
				return err
			}
		}
		return apierrors.NewConflict(imageapi.Images, "", errors.New("other writes came first each time; try again"))
	})
}

func verifyOutside(ctx context.Context, v Verifier, fn func(context.Context) error) error {
	o := &outside{verified: map[string][]*verification{}}
	ctx = context.WithValue(ctx, outsideKey{}, o)
	for attempt := 1; ; attempt++ {
		o.unverified, o.outdated = nil, false
		err := fn(ctx)
		if o.unverified == nil && !o.outdated || ctx.Err() != nil || attempt == maxAttempts {
			return err
		}
		if o.outdated {
			v.Refresh(ctx)
			clear(o.verified)
			continue
		}
		name := o.unverified.Image.Name
		known := o.verified[name]
		o.verified[name] = append(known[max(0, len(known)-keptVerifications+1):], verify(ctx, v, o.unverified))
	}
}

// keptVerifications bounds the verifications of one Image: fn may write it more than once.
const keptVerifications = 4

// applyVerification writes the results of the verification on the image, which takes the place of
// before, nil if it is new. An image whose signatures are not verified yet is noted, and must not
// be written.
func (w *write) applyVerification(v Verifier, image, before *imagev1.Image) {
	w.unverified, w.condition = nil, nil
	if v == nil {
		w.trim(image)
		return
	}
	if len(image.Signatures) == 0 {
		(&Verdict{}).write(image)
		return
	}
	if w.outside != nil {
		for _, known := range w.outside.verified[image.Name] {
			if known.covers(image) {
				w.condition = known.apply(image)
				w.trim(image)
				return
			}
		}
	}
	if !w.full {
		if known := remembered(v, &VerifyRequest{Image: image, Before: before}); known != nil {
			w.condition = known.apply(image)
			w.trim(image)
			return
		}
	}
	w.unverified = &VerifyRequest{Image: image.DeepCopy(), Before: before.DeepCopy()}
}

// conditions has the condition of the verdict that is being written.
func (w *write) conditions() []storage.Mutation {
	if w.condition == nil {
		return nil
	}
	return []storage.Mutation{*w.condition}
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
