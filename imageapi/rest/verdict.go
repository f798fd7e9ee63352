package rest

import (
	"context"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/rules"
	"tallyman/storage"
)

// Verifier verifies the signatures of Images. verification.Verifier is one.
type Verifier interface {
	// Verify writes the results of verification on the signatures of r.Image.
	Verify(ctx context.Context, r *VerifyRequest) *Verdict
	// Refresh is called when the condition of a verdict did not hold.
	Refresh(ctx context.Context)
}

// Rememberer is a Verifier that may have a verdict without verifying anything.
type Rememberer interface {
	// Remembered is Verify if the results of all signatures are known, else nil; then it may have
	// changed r.Image.
	Remembered(r *VerifyRequest) *Verdict
}

// VerifyRequest asks for the verification of an Image's signatures.
type VerifyRequest struct {
	// Image is the Image that is to be written.
	Image *imagev1.Image
	// Before is the stored Image that it takes the place of, nil if it is new.
	Before *imagev1.Image
	// Account bears the cost: the repository of a push, or the user of the API.
	Account string
	// Full asks for a verification of all signatures, however long it takes.
	Full bool
}

// Verdict is the part of a verification that is about the whole Image.
type Verdict struct {
	// Trusted are the repositories whose policy is satisfied.
	Trusted []string
	// Policies is the digest of the policies that apply to the Image, "" if none does.
	Policies string
	// Pending is set if not all signatures are verified.
	Pending bool
	// Condition has to hold when the verdict is written; nil for none.
	Condition *storage.Mutation
}

// write writes the verdict on an image.
func (v *Verdict) write(image *imagev1.Image) {
	rules.SetText(image, rules.AnnotationPolicies, v.Policies)
	if v.Pending {
		rules.SetText(image, rules.AnnotationVerification, rules.VerificationPending)
	} else {
		rules.SetText(image, rules.AnnotationVerification, rules.VerificationComplete)
	}
	rules.SetTrusted(image, v.Trusted)
}

type accountKey struct{}

// WithAccount makes the repository bear the cost of verification in writes with ctx.
func WithAccount(ctx context.Context, repository string) context.Context {
	return context.WithValue(ctx, accountKey{}, repository)
}

func accountOf(ctx context.Context) string {
	if repository, ok := ctx.Value(accountKey{}).(string); ok {
		return repository
	}
	if user, ok := request.UserFrom(ctx); ok {
		return "user:" + user.GetName() // no name of a repository
	}
	return ""
}

type fullKey struct{}

// WithFullVerification makes writes with ctx verify all signatures again, however long it takes.
func WithFullVerification(ctx context.Context) context.Context {
	return context.WithValue(ctx, fullKey{}, true)
}

// verification is the result of verifying an image's signatures, with all that it depends on.
type verification struct {
	before, after      []imagev1.ImageSignature
	repositories, tags []string
	annotations        [len(verified)]string
	verdict            *Verdict
}

// verified are the annotations that a verdict depends on, or that have the one before.
var verified = [...]string{derive.AnnotationAmbiguous, rules.AnnotationTrusted, rules.AnnotationPolicies, rules.AnnotationVerification}

func verifiedAnnotations(image *imagev1.Image) (values [len(verified)]string) {
	for i, key := range verified {
		values[i] = image.Annotations[key]
	}
	return values
}

// verify makes the verification of an image.
func verify(ctx context.Context, v Verifier, r *VerifyRequest) *verification {
	result := verificationOf(r)
	result.verdict = v.Verify(ctx, r)
	result.after = r.Image.Signatures
	return result
}

// verificationOf makes one without results. The request gets a copy of its image.
func verificationOf(r *VerifyRequest) *verification {
	image := r.Image
	r.Image = image.DeepCopy()
	return &verification{before: image.Signatures, repositories: rules.Repositories(image), tags: rules.Tags(image), annotations: verifiedAnnotations(image)}
}

// remembered makes the verification of an image if its results are known, else nil.
func remembered(v Verifier, r *VerifyRequest) *verification {
	known, ok := v.(Rememberer)
	if !ok {
		return nil
	}
	result := verificationOf(r)
	if result.verdict = known.Remembered(r); result.verdict == nil {
		return nil
	}
	result.after = r.Image.Signatures
	return result
}

// covers reports whether v is the verification of an image.
func (v *verification) covers(image *imagev1.Image) bool {
	return v.annotations == verifiedAnnotations(image) && slices.Equal(v.repositories, rules.Repositories(image)) && slices.Equal(v.tags, rules.Tags(image)) &&
		slices.EqualFunc(v.before, image.Signatures, func(a, b imagev1.ImageSignature) bool {
			a.UID = b.UID // may be given anew in each attempt
			return rules.EqualSignatures(&a, &b)
		})
}

// apply writes the results on an image that v covers, and returns the condition of the write.
func (v *verification) apply(image *imagev1.Image) *storage.Mutation {
	for i := range image.Signatures {
		uid := image.Signatures[i].UID
		v.after[i].DeepCopyInto(&image.Signatures[i])
		image.Signatures[i].UID = uid
	}
	v.verdict.write(image)
	return v.verdict.Condition
}
