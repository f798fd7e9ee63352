package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/notaryproject/notation-core-go/revocation"
	revocationresult "github.com/notaryproject/notation-core-go/revocation/result"
	"github.com/notaryproject/notation-core-go/signature"
	_ "github.com/notaryproject/notation-core-go/signature/cose" // registers its envelope
	_ "github.com/notaryproject/notation-core-go/signature/jws"  // registers its envelope
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/signatures/der"
)

// anyReference is the reference that a trust policy for everything is asked about.
const anyReference = "registry.invalid/any@"

// parseNotary reads a notation envelope (notaryproject signature-specification.md).
func parseNotary(signatureType string, content []byte) (*payload, error) {
	mediaType := "application/jose+json"
	if signatureType == signatures.TypeNotaryCOSE {
		mediaType = "application/cose"
	}
	unreadable := errors.New("the content is not a notation envelope")
	if signatureType == signatures.TypeNotaryJWS {
		var object struct{}
		if err := strictJSON(content, &object); err != nil {
			return nil, fmt.Errorf("the envelope is %w", err)
		}
	}
	envelope, err := signature.ParseEnvelope(mediaType, content)
	if err != nil {
		return nil, unreadable
	}
	signed, err := envelope.Content()
	if err != nil {
		return nil, unreadable
	}
	for _, c := range signed.SignerInfo.CertificateChain {
		if err := der.Check(c.Raw); err != nil {
			return nil, fmt.Errorf("the envelope's certificate cannot be read: %w", err)
		}
	}
	if err := der.Check(signed.SignerInfo.UnsignedAttributes.TimestampSignature); err != nil {
		return nil, fmt.Errorf("the envelope's timestamp cannot be read: %w", err)
	}
	target, err := targetOf(signed)
	if err != nil {
		return nil, err
	}
	return &payload{
		signs:  func(d digest.Digest) bool { return d == target.Digest },
		claims: target.Annotations,
		notary: &notaryPayload{mediaType, content, signed.SignerInfo.SignedAttributes.SigningTime},
	}, nil
}

func targetOf(c *signature.EnvelopeContent) (imagespec.Descriptor, error) {
	var payload struct {
		Target imagespec.Descriptor `json:"targetArtifact"`
	}
	if err := strictJSON(c.Payload.Content, &payload); err != nil {
		return payload.Target, fmt.Errorf("the envelope's payload is %w", err)
	}
	if payload.Target.Digest.Validate() != nil {
		return payload.Target, errors.New("the envelope's payload has no digest")
	}
	return payload.Target, nil
}

// trustPolicy is the root of a trust policy document. The statement for a repository decides.
type trustPolicy struct {
	named
	document   *trustpolicy.Document
	statements map[string]*notary // by name; without those that skip verification
}

// verify implements rootOfTrust. It is not called, because there is always a target.
func (p *trustPolicy) verify(*payload, digest.Digest, time.Time) (*signer, *failure) {
	return nil, errNotApplicable
}

// forTarget implements scopedRoot by notation's own rule: the one statement whose registryScopes
// have the repository, or else the one for everything.
// https://github.com/notaryproject/specifications/blob/main/specs/trust-store-trust-policy.md
func (p *trustPolicy) forTarget(t *target) (rootOfTrust, *failure) {
	names := []string{"registry.invalid"}
	if len(t.hosts) > 0 {
		names = t.hosts
	}
	var statement *trustpolicy.TrustPolicy
	for _, host := range names {
		found, err := p.document.GetApplicableTrustPolicy(host + "/" + t.repository + "@" + t.digest.String())
		if err == nil && (statement == nil || !slices.Contains(found.RegistryScopes, "*")) {
			statement = found
		}
	}
	if statement == nil {
		return nil, &failure{signatures.ReasonKeyNotTrusted, "no statement of notation's trust policy is for the repository"}
	}
	if root := p.statements[statement.Name]; root != nil {
		return root, nil
	}
	return nil, &failure{signatures.ReasonKeyNotTrusted, "the statement of notation's trust policy for the repository skips verification"}
}

// notary is a root that asks notation-go.
type notary struct {
	named
	verifier notation.Verifier
}

func newNotary(name string, p *signatures.Notary, hosts []string, files *fileReader) ([]rootOfTrust, error) {
	if p.TrustStorePath == "" {
		return nil, errors.New("trustStorePath is required: notation's truststore directory, with x509/ca/NAME/ in it")
	}
	store, err := readTrustStore(p.TrustStorePath, files)
	if err != nil {
		return nil, fmt.Errorf("trustStorePath: %w", err)
	}
	document := defaultTrustPolicy(store, p.Identities)
	if p.TrustPolicyPath != "" {
		if document, err = readTrustPolicy(p.TrustPolicyPath, files); err != nil {
			return nil, fmt.Errorf("trustPolicyPath: %w", err)
		}
	}
	root := &trustPolicy{named: named("notation policy " + cmp.Or(name, document.TrustPolicies[0].Name)), document: document, statements: map[string]*notary{}}
	for _, policy := range document.TrustPolicies {
		for _, s := range policy.RegistryScopes {
			host, _, _ := strings.Cut(s, "/")
			if s != "*" && len(hosts) == 0 {
				return nil, fmt.Errorf("trust policy %q: %w", policy.Name, needsHost(fmt.Sprintf("registryScopes: %q", s), host))
			}
		}
		if policy.SignatureVerification.VerificationLevel == trustpolicy.LevelSkip.Name {
			continue // it believes nothing in particular
		}
		statement, err := newStatement(cmp.Or(name, policy.Name), document.Version, policy, store)
		if err != nil {
			return nil, fmt.Errorf("trust policy %q: %w", policy.Name, err)
		}
		root.statements[policy.Name] = statement
	}
	return []rootOfTrust{root}, nil
}

// newStatement makes the root of one statement, whose scopes have been looked at by then.
func newStatement(name, version string, policy trustpolicy.TrustPolicy, store memoryStore) (*notary, error) {
	policy.RegistryScopes = []string{"*"}
	override := map[trustpolicy.ValidationType]trustpolicy.ValidationAction{}
	maps.Copy(override, policy.SignatureVerification.Override)
	override[trustpolicy.TypeRevocation] = trustpolicy.ActionSkip
	policy.SignatureVerification.Override = override
	single := &trustpolicy.Document{Version: version, TrustPolicies: []trustpolicy.TrustPolicy{policy}}
	v, err := verifier.NewWithOptions(single, store, nil, verifier.VerifierOptions{
		RevocationCodeSigningValidator: offline{}, RevocationTimestampingValidator: offline{},
	})
	if err != nil {
		return nil, err
	}
	return &notary{named: named("notation policy " + name), verifier: v}, nil
}

// defaultTrustPolicy trusts the authorities of the whole store.
func defaultTrustPolicy(store memoryStore, identities []string) *trustpolicy.Document {
	if len(identities) == 0 {
		identities = []string{"*"}
	}
	var stores []string
	for name := range store {
		stores = append(stores, name)
	}
	slices.Sort(stores)
	return &trustpolicy.Document{Version: "1.0", TrustPolicies: []trustpolicy.TrustPolicy{{
		Name: "default", RegistryScopes: []string{"*"}, TrustStores: stores, TrustedIdentities: identities,
		SignatureVerification: trustpolicy.SignatureVerification{VerificationLevel: trustpolicy.LevelStrict.Name},
	}}}
}

func readTrustPolicy(path string, files *fileReader) (*trustpolicy.Document, error) {
	content, err := files.file(path)
	if err != nil {
		return nil, err
	}
	document := &trustpolicy.Document{}
	if err := exactJSON(content, document); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := document.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return document, nil
}

// offline answers questions about revocation without asking anybody.
type offline struct{}

// ValidateContext implements revocation.Validator.
func (offline) ValidateContext(_ context.Context, o revocation.ValidateContextOptions) ([]*revocationresult.CertRevocationResult, error) {
	results := make([]*revocationresult.CertRevocationResult, len(o.CertChain))
	for i := range results {
		results[i] = &revocationresult.CertRevocationResult{Result: revocationresult.ResultNonRevokable}
	}
	return results, nil
}

// verify implements rootOfTrust.
func (r *notary) verify(c *payload, subject digest.Digest, now time.Time) (*signer, *failure) {
	if c.notary == nil {
		return nil, errNotApplicable
	}
	content, failed := r.ask(c.notary, subject)
	if failed != nil {
		return nil, failed
	}
	if c.notary.signed.After(now.Add(clockSkew)) {
		return nil, &failure{signatures.ReasonExpired, "the signature was made in the future"}
	}
	leaf := content.SignerInfo.CertificateChain[0]
	s := signerOf(leaf, nil)
	s.created = c.notary.signed
	return s, nil
}

// ask has notation-go verify the envelope. A failed check is a failure here at every level of
// the trust policy: "audit" would log it and accept the signature.
func (r *notary) ask(c *notaryPayload, subject digest.Digest) (*signature.EnvelopeContent, *failure) {
	envelope, err := signature.ParseEnvelope(c.mediaType, c.envelope)
	if err != nil {
		return nil, &failure{signatures.ReasonSignatureInvalid, "the envelope cannot be read"}
	}
	content, err := envelope.Content()
	if err != nil {
		return nil, &failure{signatures.ReasonSignatureInvalid, "the envelope cannot be read"}
	}
	target, err := targetOf(content)
	if err != nil {
		return nil, &failure{signatures.ReasonSignatureInvalid, "the envelope cannot be read"}
	}
	result, err := r.verifier.Verify(context.Background(), target, c.envelope, notation.VerifierVerifyOptions{
		ArtifactReference: anyReference + subject.String(), SignatureMediaType: c.mediaType,
	})
	if result != nil {
		for _, check := range result.VerificationResults {
			if check.Error != nil {
				return nil, notaryFailure(check)
			}
		}
	}
	if err != nil || result == nil || result.EnvelopeContent == nil || len(result.EnvelopeContent.SignerInfo.CertificateChain) == 0 {
		return nil, &failure{signatures.ReasonSignatureInvalid, "the envelope cannot be verified"}
	}
	return result.EnvelopeContent, nil
}

func notaryFailure(check *notation.ValidationResult) *failure {
	switch check.Type {
	case trustpolicy.TypeIntegrity:
		return &failure{signatures.ReasonSignatureInvalid, "the signature is not one of its content by its certificate's key"}
	case trustpolicy.TypeAuthenticity:
		return &failure{signatures.ReasonCertificateUntrusted, "the certificate leads to no trusted authority, or is not of a trusted identity"}
	case trustpolicy.TypeExpiry:
		return &failure{signatures.ReasonExpired, "the signature has expired"}
	case trustpolicy.TypeAuthenticTimestamp:
		return &failure{signatures.ReasonExpired, "the certificate was not valid when the signature was made, as far as can be told"}
	}
	return &failure{signatures.ReasonCertificateUntrusted, "the certificate cannot be verified"}
}
