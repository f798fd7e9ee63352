package rules

import (
	"fmt"

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
