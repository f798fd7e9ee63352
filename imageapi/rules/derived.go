package rules

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"tallyman/signatures"
)

// SignatureBounds are those of an Image's derived signatures. Zero values are no bounds.
type SignatureBounds struct {
	// Count is their number.
	Count int
	// Bytes is the size of their contents together.
	Bytes int
}

// TrimDerived leaves the derived signatures that fit into bounds: first those that are trusted, then
// those that can be read, then the rest, each in the order that they have. It sorts them by name,
// after the posted ones, and adds the number of the others to AnnotationSignaturesOmitted.
func TrimDerived(image *imagev1.Image, bounds SignatureBounds) {
	var posted, derived []imagev1.ImageSignature
	for i := range image.Signatures {
		if s := &image.Signatures[i]; IsDerived(image, s) {
			derived = append(derived, *s)
		} else {
			posted = append(posted, *s)
		}
	}
	if len(derived) == 0 {
		return
	}
	slices.SortStableFunc(derived, func(a, b imagev1.ImageSignature) int { return cmp.Compare(verdictRank(&a), verdictRank(&b)) })
	kept, size := derived[:0:0], 0
	for i := range derived {
		s := &derived[i]
		if bounds.Count > 0 && len(kept) == bounds.Count {
			break
		}
		if bounds.Bytes > 0 && size+len(s.Content) > bounds.Bytes {
			continue
		}
		size += len(s.Content)
		kept = append(kept, *s)
	}
	if omitted := len(derived) - len(kept); omitted > 0 {
		before, _ := strconv.Atoi(image.Annotations[AnnotationSignaturesOmitted]) // the server's own
		SetOmitted(image, before+omitted)
	}
	slices.SortFunc(kept, func(a, b imagev1.ImageSignature) int { return strings.Compare(a.Name, b.Name) })
	image.Signatures = slices.Concat(posted, kept)
}

// verdictRank orders signatures by the use that they are of.
func verdictRank(s *imagev1.ImageSignature) int {
	trusted := signatures.Condition(s, signatures.ConditionTrusted)
	switch {
	case trusted != nil && trusted.Status == corev1.ConditionTrue:
		return 0
	case trusted != nil && (trusted.Reason == signatures.ReasonUnparsable || trusted.Reason == signatures.ReasonTooLarge):
		return 2
	}
	return 1
}

// SetOmitted notes how many signatures of the registry are not on the Image.
func SetOmitted(image *imagev1.Image, omitted int) {
	text := ""
	if omitted != 0 {
		text = strconv.Itoa(omitted)
	}
	SetText(image, AnnotationSignaturesOmitted, text)
}

// Renewed returns an Image of the same manifest as it is after a push: another object, without labels,
// annotations, owners and signatures of users. If some of these were signatures, it is trusted once
// those that are left have been verified.
func Renewed(image *imagev1.Image, now metav1.Time) *imagev1.Image {
	fresh := image.DeepCopy()
	fresh.ObjectMeta = metav1.ObjectMeta{Name: image.Name, UID: uuid.NewUUID(), CreationTimestamp: now, Annotations: map[string]string{}}
	RestoreOwnAnnotations(fresh, image)
	fresh.Annotations[AnnotationOrigin], fresh.Annotations[AnnotationManaged] = OriginRegistry, "true"
	fresh.Signatures = slices.DeleteFunc(fresh.Signatures, func(s imagev1.ImageSignature) bool { return !IsDerived(image, &s) })
	if len(fresh.Signatures) == 0 {
		fresh.Signatures = nil
	}
	if len(fresh.Signatures) < len(image.Signatures) {
		SetTrusted(fresh, nil)
		SetText(fresh, AnnotationVerification, VerificationPending)
	}
	return fresh
}
