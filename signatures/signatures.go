// Package signatures reads the signatures that manifests carry, and makes an entry of
// Image.signatures of each.
//
// It knows the forms in which signatures reach a registry (cosign's tag and its OCI referrer,
// sigstore bundles, notation's envelopes, GPG simple signing) and the conditions of an Image
// about them. Package signatures/policy decides whether a signature is trusted.
//
// # Guarantees
//
// All functions are pure: their results depend on the bytes alone, so that all replicas agree.
// They take any bytes, and never panic. Package signatures/manifest parses the manifests.
package signatures

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
)

// Types of signatures, as ImageSignature.type has them. The first two are
// OpenShift's and containers/image's.
const (
	// TypeAtomic is an OpenPGP message around a simple signing payload.
	TypeAtomic = "atomic"
	// TypeAtomicV1 is the same under the name that OpenShift's API has for it.
	TypeAtomicV1 = imagev1.ImageSignatureTypeAtomicImageV1
	// TypeCosign is one layer of a cosign signature manifest. Its content is
	// JSON: mimeType, payload in base64, annotations.
	TypeCosign = "CosignSimpleSigningV1"
	// TypeBundle is a sigstore bundle, as JSON.
	TypeBundle = "SigstoreBundleV1"
	// TypeNotaryJWS is a notation envelope in JWS.
	TypeNotaryJWS = "NotaryJWSV1"
	// TypeNotaryCOSE is a notation envelope in COSE.
	TypeNotaryCOSE = "NotaryCOSEV1"
)

// Known reports whether the server verifies signatures of the type and writes conditions;
// others are kept as they are.
func Known(signatureType string) bool {
	switch signatureType {
	case TypeAtomic, TypeAtomicV1, TypeCosign, TypeBundle, TypeNotaryJWS, TypeNotaryCOSE:
		return true
	}
	return false
}

// IsSimpleSigning reports whether the type is GPG simple signing, which skopeo and
// podman send and read through the registry's signature endpoint.
func IsSimpleSigning(signatureType string) bool {
	return signatureType == TypeAtomic || signatureType == TypeAtomicV1
}

// Condition types of an ImageSignature, which come as a pair in this order.
const (
	ConditionTrusted  imagev1.SignatureConditionType = "Trusted"
	ConditionForImage imagev1.SignatureConditionType = "ForImage"
)

// Reasons of the condition Trusted.
const (
	// ReasonVerified: a policy's root of trust vouches for the signature.
	ReasonVerified = "Verified"
	// ReasonSignatureInvalid: the signature is not one of its content by its key.
	ReasonSignatureInvalid = "SignatureInvalid"
	// ReasonKeyNotTrusted: no trusted key has made it, or one that is revoked.
	ReasonKeyNotTrusted = "KeyNotTrusted"
	// ReasonIdentityMismatch: it is valid, but by another signer than the policy wants, or for
	// another repository.
	ReasonIdentityMismatch = "IdentityMismatch"
	// ReasonHostNotConfigured: it names a repository with a host, and the configuration does not
	// say this registry's.
	ReasonHostNotConfigured = "HostNotConfigured"
	// ReasonCertificateUntrusted: its certificate leads to no trusted authority.
	ReasonCertificateUntrusted = "CertificateUntrusted"
	// ReasonTimestampMissing: the policy wants a timestamp that can be verified.
	ReasonTimestampMissing = "TimestampMissing"
	// ReasonLogEntryMissing: the policy wants an entry in a transparency log.
	ReasonLogEntryMissing = "LogEntryMissing"
	// ReasonExpired: the key, certificate or signature is not valid at its time.
	ReasonExpired = "Expired"
	// ReasonDigestMismatch: it signs another image. Also of ForImage.
	ReasonDigestMismatch = "DigestMismatch"
	// ReasonAmbiguousManifest: clients may read the image's manifest differently, so that nobody can
	// say which content was signed.
	ReasonAmbiguousManifest = "AmbiguousManifest"
	// ReasonPending: it has not been verified yet: it takes more time than a push may, or the process
	// that wrote it has policies that are not in force. It will be, in the background.
	ReasonPending = "Pending"
	// ReasonNoPolicy: no policy covers a repository of the image.
	ReasonNoPolicy = "NoPolicy"
	// ReasonUnparsable: the content does not have the form of its type. Also of ForImage.
	ReasonUnparsable = "Unparsable"
	// ReasonTooLarge: the content is too large to be kept in the Image; in its
	// place is the descriptor of the blob that has it.
	ReasonTooLarge = "TooLarge"
	// ReasonDigestMatches: it signs this image. Of ForImage.
	ReasonDigestMatches = "DigestMatches"
	// ReasonUnknown: which image it signs cannot be told. Of ForImage.
	ReasonUnknown = "Unknown"
)

var reasons = map[string]bool{
	ReasonVerified: true, ReasonSignatureInvalid: true, ReasonKeyNotTrusted: true, ReasonIdentityMismatch: true, ReasonHostNotConfigured: true,
	ReasonCertificateUntrusted: true, ReasonTimestampMissing: true, ReasonLogEntryMissing: true, ReasonExpired: true,
	ReasonDigestMismatch: true, ReasonAmbiguousManifest: true, ReasonPending: true, ReasonNoPolicy: true, ReasonUnparsable: true, ReasonTooLarge: true,
	ReasonDigestMatches: true, ReasonUnknown: true,
}

// IsReason reports whether the server itself gives this reason; a condition with
// another one was written by somebody else, such as `oc adm verify-image-signature`.
func IsReason(reason string) bool { return reasons[reason] }

// Signature is one signature as it came.
type Signature struct {
	// Type is one of the constants above, or any text that a client posts.
	Type string `json:"type"`
	// Content is the value of ImageSignature.content.
	Content []byte `json:"content"`
}

// Name returns the name of the entry that is derived from s on the Image of
// subject: the same on every replica, and wherever the signature came from.
func Name(subject digest.Digest, s Signature) string {
	full := FullName(subject, s)
	return full[:len(full)-32]
}

// FullName is Name with twice as many digits. An entry has it if a client has posted other content
// under its Name.
func FullName(subject digest.Digest, s Signature) string {
	h := sha256.New()
	h.Write([]byte(s.Type))
	h.Write([]byte{0})
	h.Write(s.Content)
	return subject.String() + "@" + hex.EncodeToString(h.Sum(nil))
}

// Condition returns the condition of a type, nil if s has none.
func Condition(s *imagev1.ImageSignature, conditionType imagev1.SignatureConditionType) *imagev1.SignatureCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == conditionType {
			return &s.Conditions[i]
		}
	}
	return nil
}

// IsTrusted reports whether s is to be believed to be by its issuedTo.
func IsTrusted(s *imagev1.ImageSignature) bool {
	trusted, forImage := Condition(s, ConditionTrusted), Condition(s, ConditionForImage)
	return trusted != nil && forImage != nil && trusted.Status == "True" && forImage.Status == "True"
}

// IsOfImage reports whether s counts as a signature of its image: it does not if
// it is known to be another image's, or nothing at all.
func IsOfImage(s *imagev1.ImageSignature) bool {
	forImage := Condition(s, ConditionForImage)
	return forImage == nil || (forImage.Status != "False" && forImage.Reason != ReasonUnparsable)
}
