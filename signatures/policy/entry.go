package policy

import (
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/signatures"
)

// apply writes the result on s. A time changes only together with its condition, so that
// verifying again writes the same bytes.
func (v *result) apply(s *imagev1.ImageSignature, now time.Time) {
	if v.trusted.status == "Unknown" && writtenByOthers(s) {
		return
	}
	trusted := conditionOf(signatures.ConditionTrusted, v.trusted, s, now)
	forImage := conditionOf(signatures.ConditionForImage, v.forImage, s, now)
	s.Conditions = []imagev1.SignatureCondition{trusted, forImage}
	s.ImageIdentity, s.SignedClaims, s.Created, s.IssuedBy, s.IssuedTo = "", nil, nil, nil, nil
	if v.signer == nil {
		return
	}
	s.ImageIdentity = v.payload.reference
	s.SignedClaims = boundedClaims(v.payload.claims, v.signer.claims)
	if !v.signer.created.IsZero() {
		created := metav1.NewTime(v.signer.created.UTC().Truncate(time.Second))
		s.Created = &created
	}
	s.IssuedBy, s.IssuedTo = v.signer.issuedBy.DeepCopy(), v.signer.issuedTo.DeepCopy()
}

// writtenByOthers reports whether an administrator has written the conditions of a
// GPG signature, as `oc adm verify-image-signature --save` does. They are kept as
// long as no policy knows better.
func writtenByOthers(s *imagev1.ImageSignature) bool {
	trusted := signatures.Condition(s, signatures.ConditionTrusted)
	return signatures.IsSimpleSigning(s.Type) && trusted != nil && !signatures.IsReason(trusted.Reason)
}

func conditionOf(conditionType imagev1.SignatureConditionType, c condition, s *imagev1.ImageSignature, now time.Time) imagev1.SignatureCondition {
	at := metav1.NewTime(now.UTC().Truncate(time.Second))
	next := imagev1.SignatureCondition{
		Type: conditionType, Status: corev1.ConditionStatus(c.status), Reason: c.reason, Message: c.message,
		LastProbeTime: at, LastTransitionTime: at,
	}
	before := signatures.Condition(s, conditionType)
	if before == nil || before.Status != next.Status {
		return next
	}
	next.LastTransitionTime = before.LastTransitionTime
	if before.Reason == next.Reason && before.Message == next.Message {
		next.LastProbeTime = before.LastProbeTime
	}
	return next
}
