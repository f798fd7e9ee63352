package signatures

import (
	"encoding/json"
	"slices"
)

// PredicateCosignSign is the predicate type of a bundle by `cosign sign`. Every other
// one is that of an attestation.
const PredicateCosignSign = "https://sigstore.dev/cosign/sign/v1"

// Statement is the part of an in-toto statement that matters here
// (in-toto attestation spec v1, statement.md).
type Statement struct {
	PredicateType string             `json:"predicateType"`
	Subject       []StatementSubject `json:"subject"`
}

// StatementSubject is one thing that a statement is about.
type StatementSubject struct {
	Name        string            `json:"name"`
	Digest      map[string]string `json:"digest"`
	Annotations map[string]any    `json:"annotations"`
}

// isAttestation reports whether a bundle states something other than that the image is signed.
// The statement under the signature decides, because annotations of the manifest are unsigned.
// Content that is no bundle is no attestation.
func isAttestation(bundle []byte) bool {
	var b struct {
		Envelope *struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	if json.Unmarshal(bundle, &b) != nil || b.Envelope == nil {
		return false
	}
	var statement Statement
	if json.Unmarshal(b.Envelope.Payload, &statement) != nil {
		return false
	}
	return statement.PredicateType != "" && statement.PredicateType != PredicateCosignSign
}

// HasDigest reports whether the statement is about the digest algorithm:hex.
func (s *Statement) HasDigest(algorithm, hex string) bool {
	return slices.ContainsFunc(s.Subject, func(subject StatementSubject) bool { return subject.Digest[algorithm] == hex })
}
