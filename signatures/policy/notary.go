package policy

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/notaryproject/notation-core-go/revocation"
	revocationresult "github.com/notaryproject/notation-core-go/revocation/result"
	"github.com/notaryproject/notation-core-go/signature"
	_ "github.com/notaryproject/notation-core-go/signature/cose" // registers its envelope
	_ "github.com/notaryproject/notation-core-go/signature/jws"  // registers its envelope
	corex509 "github.com/notaryproject/notation-core-go/x509"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/verifier"
	"github.com/notaryproject/notation-go/verifier/trustpolicy"
	"github.com/notaryproject/notation-go/verifier/truststore"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
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

// notary is a root that asks notation-go.
type notary struct {
	named
	verifier notation.Verifier
}

func newNotary(name string, p *signatures.Notary, files *fileReader) ([]rootOfTrust, error) {
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
	var roots []rootOfTrust
	for _, policy := range document.TrustPolicies {
		// Which repositories it is for, our own scopes say.
		policy.RegistryScopes = []string{"*"}
		if policy.SignatureVerification.Override == nil {
			policy.SignatureVerification.Override = map[trustpolicy.ValidationType]trustpolicy.ValidationAction{}
		}
		if policy.SignatureVerification.VerificationLevel == trustpolicy.LevelSkip.Name {
			continue // it believes nothing in particular
		}
		policy.SignatureVerification.Override[trustpolicy.TypeRevocation] = trustpolicy.ActionSkip
		single := &trustpolicy.Document{Version: document.Version, TrustPolicies: []trustpolicy.TrustPolicy{policy}}
		v, err := verifier.NewWithOptions(single, store, nil, verifier.VerifierOptions{
			RevocationCodeSigningValidator: offline{}, RevocationTimestampingValidator: offline{},
		})
		if err != nil {
			return nil, fmt.Errorf("trust policy %q: %w", policy.Name, err)
		}
		roots = append(roots, &notary{named: named("notation policy " + cmp.Or(name, policy.Name)), verifier: v})
	}
	return roots, nil
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
	if err := json.Unmarshal(content, document); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := document.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return document, nil
}

// memoryStore is a trust store that has been read: certificates by type:name.
type memoryStore map[string][]*x509.Certificate

// readTrustStore reads notation's truststore directory: x509/TYPE/NAME/FILE. Unlike
// notation's own it takes symbolic links, which volumes of Kubernetes are made of.
func readTrustStore(path string, files *fileReader) (memoryStore, error) {
	store := memoryStore{}
	for _, kind := range truststore.Types {
		stores, err := files.directory(filepath.Join(path, "x509", string(kind)))
		if err != nil {
			continue // not of every type there is one
		}
		for _, named := range stores {
			certificates, err := files.directory(named)
			if err != nil {
				return nil, err
			}
			for _, file := range certificates {
				if _, err := files.file(file); err != nil {
					return nil, err
				}
				read, err := corex509.ReadCertificateFile(file)
				if err == nil {
					err = truststore.ValidateCertificates(read)
				}
				if err != nil {
					return nil, fmt.Errorf("%s: %w", file, err)
				}
				key := string(kind) + ":" + filepath.Base(named)
				store[key] = append(store[key], read...)
			}
		}
	}
	if len(store) == 0 {
		return nil, fmt.Errorf("%s holds no certificate: want x509/ca/NAME/CERTIFICATE", path)
	}
	return store, nil
}

// GetCertificates implements truststore.X509TrustStore.
func (s memoryStore) GetCertificates(_ context.Context, kind truststore.Type, name string) ([]*x509.Certificate, error) {
	certificates := s[string(kind)+":"+name]
	if len(certificates) == 0 {
		return nil, fmt.Errorf("the trust store has no %s:%s", kind, name)
	}
	return certificates, nil
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
