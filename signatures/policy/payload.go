package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore-go/pkg/verify"
	kjson "sigs.k8s.io/json"

	"tallyman/signatures"
)

// maxClaims bounds the bytes of SignedClaims: they are their author's to choose.
const maxClaims = 16 << 10

// payload is the statement of a signature. None of it is trusted before a root of trust has
// verified it.
type payload struct {
	// signs reports whether it is about the digest.
	signs func(digest.Digest) bool
	// reference is the pull reference that it names; hasReference is false for
	// formats that have none.
	reference    string
	hasReference bool
	claims       map[string]string

	// The material to verify: one of these.
	sigstore *sigstorePayload
	gpg      []byte
	notary   *notaryPayload
}

// sigstorePayload is verified by sigstore-go.
type sigstorePayload struct {
	entity verify.SignedEntity
	// payload is the signed content, if that is not the digest of the image.
	payload []byte
}

// notaryPayload is verified by notation-go.
type notaryPayload struct {
	mediaType string
	envelope  []byte
	signed    time.Time
}

// parse reads a signature. Its error is for the conditions: it repeats nothing of
// the content.
func parse(signatureType string, content []byte) (*payload, error) {
	if signatures.IsReference(content) {
		return nil, errTooLarge
	}
	switch signatureType {
	case signatures.TypeCosign:
		return parseCosign(content)
	case signatures.TypeBundle:
		return parseBundle(content)
	case signatures.TypeNotaryJWS, signatures.TypeNotaryCOSE:
		return parseNotary(signatureType, content)
	case signatures.TypeAtomic, signatures.TypeAtomicV1:
		return parseGPG(content)
	}
	return nil, fmt.Errorf("type %q is not known", signatureType)
}

// strictJSON decodes JSON whose names are exact and given once: ambiguous content would be
// read in another way by other programs.
func strictJSON(data []byte, into any) error {
	strict, err := kjson.UnmarshalStrict(data, into, kjson.DisallowDuplicateFields)
	if err != nil {
		return fmt.Errorf("not JSON of the right form")
	}
	if len(strict) > 0 {
		return fmt.Errorf("JSON with names given twice")
	}
	return nil
}

// exactJSON is strictJSON for a file of an operator: it names the field that is not known, or
// given twice.
func exactJSON(data []byte, into any) error {
	strict, err := kjson.UnmarshalStrict(data, into)
	if err == nil {
		err = errors.Join(strict...)
	}
	return err
}

// Types of simple signing payloads (containers-signature(5), cosign's
// SIGNATURE_SPEC.md).
const (
	payloadAtomic = "atomic container signature"
	payloadCosign = "cosign container image signature"
)

// parsePayload reads a simple signing payload, which GPG and cosign's classic
// signatures share.
func parsePayload(content []byte, payloadType string) (*payload, error) {
	var p struct {
		Critical struct {
			Identity struct {
				Reference string `json:"docker-reference"`
			} `json:"identity"`
			Image struct {
				Digest string `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
		Optional map[string]any `json:"optional"`
	}
	if err := strictJSON(content, &p); err != nil {
		return nil, fmt.Errorf("the payload is %w", err)
	}
	if p.Critical.Type != payloadType {
		return nil, fmt.Errorf("the payload's critical.type is not %q", payloadType)
	}
	signed := digest.Digest(p.Critical.Image.Digest)
	if signed.Validate() != nil {
		return nil, fmt.Errorf("the payload's critical.image.docker-manifest-digest is no digest")
	}
	return &payload{
		signs:     func(d digest.Digest) bool { return d == signed },
		reference: p.Critical.Identity.Reference, hasReference: true,
		claims: claimsOf(p.Optional),
	}, nil
}

// claimsOf makes texts of values: those of strings are the strings, those of all
// else are JSON.
func claimsOf(values map[string]any) map[string]string {
	claims := map[string]string{}
	for key, value := range values {
		if text, ok := value.(string); ok {
			claims[key] = text
			continue
		}
		if encoded, err := json.Marshal(value); err == nil {
			claims[key] = string(encoded)
		}
	}
	return claims
}

// boundedClaims returns as many claims, in the order of their names, as fit.
func boundedClaims(all ...map[string]string) map[string]string {
	merged := map[string]string{}
	for _, claims := range all {
		maps.Copy(merged, claims)
	}
	size := 0
	for _, key := range slices.Sorted(maps.Keys(merged)) {
		with := size + len(key) + len(merged[key])
		if with > maxClaims || key == "" || !utf8.ValidString(key) || !utf8.ValidString(merged[key]) {
			delete(merged, key)
			continue
		}
		size = with
	}
	if len(merged) == 0 {
		return nil
	}
	return merged
}

// hexOf returns the algorithm and the hexadecimal part of a digest.
func hexOf(d digest.Digest) (algorithm, encoded string) {
	algorithm, encoded, _ = strings.Cut(d.String(), ":")
	return algorithm, encoded
}
