package rules

import (
	"fmt"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds of an Image that a client writes. Content of the registry is cut to its own bounds and
// never refused.
const (
	// MaxSignatureBytes is the largest content of one signature, and of all that clients have
	// posted to an Image together.
	MaxSignatureBytes = 1 << 20
	// MaxPostedSignatures is the number of signatures that clients may post to an Image.
	MaxPostedSignatures = 64
	// MaxImageBytes is the largest Image, as protobuf. etcd has the same limit for a request.
	MaxImageBytes = 3 << 19
	// MaxRepositorySignatures and MaxRepositoryBytes are the number of signatures that may be put into
	// one repository for an Image, and the size of their contents together; one may be larger alone.
	MaxRepositorySignatures = 16
	MaxRepositoryBytes      = 256 << 10
)

// extent is what the bounds are about.
type extent struct{ posted, postedBytes, bytes int }

func extentOf(image *imagev1.Image) extent {
	e := extent{bytes: image.Size()}
	for i := range image.Signatures {
		if s := &image.Signatures[i]; !IsDerived(image, s) {
			e.posted++
			e.postedBytes += len(s.Content)
		}
	}
	return e
}

// ValidateRepositorySignature refuses a signature that has been put into repository, the last one of
// image, if there is no room for it.
func ValidateRepositorySignature(image, before *imagev1.Image, repository string) field.ErrorList {
	count, size := 0, 0
	for i := range image.Signatures {
		if s := &image.Signatures[i]; slices.Contains(SignatureRepositories(s), repository) {
			count++
			size += len(s.Content)
		}
	}
	at := field.NewPath("signatures")
	errs := validateBounds(image, before)
	if count > MaxRepositorySignatures {
		errs = append(errs, field.Invalid(at, count, fmt.Sprintf("a repository may have %d signatures for an image", MaxRepositorySignatures)))
	}
	if count > 1 && size > MaxRepositoryBytes {
		errs = append(errs, field.Invalid(at, fmt.Sprintf("%d bytes", size), fmt.Sprintf("the signatures of a repository for an image may have %d bytes together", MaxRepositoryBytes)))
	}
	return errs
}

// validateBounds refuses an Image that grows beyond the bounds. One that is larger already may
// stay as large, and shrink.
func validateBounds(image, before *imagev1.Image) field.ErrorList {
	now, old := extentOf(image), extent{}
	if before != nil {
		old = extentOf(before)
	}
	var errs field.ErrorList
	at := field.NewPath("signatures")
	if now.posted > max(MaxPostedSignatures, old.posted) {
		errs = append(errs, field.TooMany(at, now.posted, MaxPostedSignatures))
	}
	if now.postedBytes > max(MaxSignatureBytes, old.postedBytes) {
		errs = append(errs, field.Invalid(at, fmt.Sprintf("%d bytes", now.postedBytes), fmt.Sprintf("the signatures that clients post to an image may have %d bytes together", MaxSignatureBytes)))
	}
	if now.bytes > max(MaxImageBytes, old.bytes) {
		errs = append(errs, field.Invalid(field.NewPath(""), fmt.Sprintf("%d bytes", now.bytes), fmt.Sprintf("an image may have %d bytes", MaxImageBytes)))
	}
	return errs
}
