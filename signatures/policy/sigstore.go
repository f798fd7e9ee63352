package policy

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"tallyman/signatures"
)

// certificates is a root that vouches for the certificate of a signature: Fulcio's
// short-lived ones, or those of an authority of one's own.
type certificates struct {
	named
	material root.TrustedMaterial
	verifier *verify.Verifier
	// The requirements of the policy, to tell which is missing.
	tlog, timestamp bool
	// allows reports whether the policy trusts the subject of the certificate.
	allows func(*x509.Certificate) bool
}

// verify implements rootOfTrust.
func (r *certificates) verify(c *payload, subject digest.Digest, _ time.Time) (*signer, *failure) {
	if c.sigstore == nil {
		return nil, errNotApplicable
	}
	entity := c.sigstore.entity
	content, err := entity.VerificationContent()
	if err != nil || content.Certificate() == nil {
		return nil, errNotApplicable
	}
	if missing := r.missing(entity); missing != nil {
		return nil, missing
	}
	result, err := r.verifier.Verify(entity, verify.NewPolicy(c.sigstore.artifact(subject), verify.WithoutIdentitiesUnsafe()))
	if err != nil {
		return nil, r.diagnose(err, c.sigstore, subject, content.Certificate())
	}
	leaf := content.Certificate()
	if !r.allows(leaf) {
		return nil, &failure{signatures.ReasonIdentityMismatch, "the signature is by somebody else"}
	}
	s := signerOf(leaf, result.Signature.Certificate)
	s.created = earliest(result.VerifiedTimestamps)
	return s, nil
}

// artifact is the signed content: the payload of cosign's classic form, whose digest of the
// image is checked before, or the image itself.
func (c *sigstorePayload) artifact(subject digest.Digest) verify.ArtifactPolicyOption {
	if c.payload != nil {
		return verify.WithArtifact(bytes.NewReader(c.payload))
	}
	algorithm, sum := decoded(subject)
	return verify.WithArtifactDigest(algorithm, sum)
}

func decoded(d digest.Digest) (algorithm string, sum []byte) {
	algorithm, encoded := hexOf(d)
	sum, err := hex.DecodeString(encoded)
	if err != nil {
		return algorithm, nil // which no artifact has
	}
	return algorithm, sum
}

// missing reports evidence that the policy wants and the signature does not have.
func (r *certificates) missing(entity verify.SignedEntity) *failure {
	entries, err := entity.TlogEntries()
	if r.tlog && (err != nil || len(entries) == 0) {
		return &failure{signatures.ReasonLogEntryMissing, "the signature has no entry of a transparency log"}
	}
	timestamps, err := entity.Timestamps()
	if r.timestamp && (err != nil || len(timestamps) == 0) {
		return &failure{signatures.ReasonTimestampMissing, "the signature has no timestamp of an authority"}
	}
	return nil
}

// The beginnings of sigstore-go's errors, each of one step of a verification
// (https://github.com/sigstore/sigstore-go/blob/main/pkg/verify/signed_entity.go).
const (
	failedLog       = "failed to verify log inclusion"
	failedTime      = "failed to verify timestamps"
	failedLeaf      = "failed to verify leaf certificate"
	failedSignature = "failed to verify signature"
)

// failedAt reports whether an error of sigstore-go is of a step.
func failedAt(err error, step string) bool { return strings.HasPrefix(err.Error(), step) }

// diagnose returns the reason of a failed verification from its error. The signature is the last
// step of a verification, so it is looked at only if another step has failed before.
func (r *certificates) diagnose(err error, c *sigstorePayload, subject digest.Digest, leaf *x509.Certificate) *failure {
	switch {
	case failedAt(err, failedSignature), c.check(r.material, subject) != nil:
		return &failure{signatures.ReasonSignatureInvalid, "the signature is not one of its content by its certificate's key"}
	case failedAt(err, failedLog) && loggedOutside(c.entity, leaf):
		return &failure{signatures.ReasonExpired, "the certificate was not valid when the signature was made"}
	case failedAt(err, failedLog):
		return &failure{signatures.ReasonLogEntryMissing, "the signature has no entry of a transparency log that can be verified"}
	case failedAt(err, failedTime):
		return &failure{signatures.ReasonTimestampMissing, "the signature has no time that can be verified"}
	case failedAt(err, failedLeaf):
		if _, err := verify.VerifyLeafCertificate(leaf.NotBefore.Add(time.Second), leaf, r.material); err == nil {
			return &failure{signatures.ReasonExpired, "the certificate was not valid when the signature was made"}
		}
		return &failure{signatures.ReasonCertificateUntrusted, "the certificate leads to no trusted authority"}
	}
	return &failure{signatures.ReasonCertificateUntrusted, "the certificate is not in a certificate transparency log, or cannot be verified"}
}

// loggedOutside reports that a log entry, if it can be believed, is from a time at
// which the certificate was not valid.
func loggedOutside(entity verify.SignedEntity, leaf *x509.Certificate) bool {
	entries, err := entity.TlogEntries()
	return err == nil && slices.ContainsFunc(entries, func(e *tlog.Entry) bool {
		at := e.IntegratedTime()
		return !at.IsZero() && (at.Before(leaf.NotBefore) || at.After(leaf.NotAfter))
	})
}

// check verifies the signature alone, with the key that it names.
func (c *sigstorePayload) check(material root.TrustedMaterial, subject digest.Digest) error {
	signature, err := c.entity.SignatureContent()
	if err != nil {
		return err
	}
	content, err := c.entity.VerificationContent()
	if err != nil {
		return err
	}
	if c.payload == nil {
		algorithm, sum := decoded(subject)
		return verify.VerifySignatureWithArtifactDigests(signature, content, material, []verify.ArtifactDigest{{Algorithm: algorithm, Digest: sum}})
	}
	return verify.VerifySignatureWithArtifacts(signature, content, material, []io.Reader{bytes.NewReader(c.payload)})
}

// earliest returns the first time at which somebody trustworthy has seen the
// signature; zero if nobody has.
func earliest(timestamps []verify.TimestampVerificationResult) time.Time {
	var first time.Time
	for _, t := range timestamps {
		if t.Type != "CurrentTime" && (first.IsZero() || t.Timestamp.Before(first)) {
			first = t.Timestamp
		}
	}
	return first
}

// signerOf describes the holder of a verified certificate.
func signerOf(leaf *x509.Certificate, summary *certificate.Summary) *signer {
	s := &signer{
		issuedBy: imagev1.SignatureIssuer{SignatureGenericEntity: imagev1.SignatureGenericEntity{
			CommonName: leaf.Issuer.CommonName, Organization: strings.Join(leaf.Issuer.Organization, ", "),
		}},
		issuedTo: imagev1.SignatureSubject{PublicKeyID: keyID(leaf.PublicKey)},
	}
	s.issuedTo.CommonName, s.issuedTo.Organization = leaf.Subject.CommonName, strings.Join(leaf.Subject.Organization, ", ")
	if summary == nil {
		return s
	}
	s.issuedTo.CommonName = summary.SubjectAlternativeName
	if s.issuedTo.Organization == "" {
		s.issuedTo.Organization = summary.SourceRepositoryOwnerURI
	}
	s.claims = extensionsOf(summary)
	return s
}

// extensionsOf returns Fulcio's extensions about the signer, under the names that `cosign
// verify` prints.
func extensionsOf(summary *certificate.Summary) map[string]string {
	claims := map[string]string{}
	encoded, err := json.Marshal(summary.Extensions)
	if err != nil {
		return nil // they are texts
	}
	var values map[string]any
	if json.Unmarshal(encoded, &values) != nil {
		return nil
	}
	for key, value := range values {
		if text, ok := value.(string); ok && key != "issuer" {
			claims[key] = text
		}
	}
	if summary.Issuer != "" {
		claims["Issuer"] = summary.Issuer
	}
	claims["Subject"] = summary.SubjectAlternativeName
	return claims
}

// keyID returns the SHA-256 of the key's SubjectPublicKeyInfo in hex, "" for a key
// that has none.
func keyID(key crypto.PublicKey) string {
	der, err := cryptoutils.MarshalPublicKeyToDER(key)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
