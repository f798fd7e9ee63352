package policy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"tallyman/signatures"
	"tallyman/signatures/der"
)

// maxEvidence is the number of timestamps, and of log entries, that a signature may have: each is
// verified by itself.
const maxEvidence = 8

// bundleV01 is the media type of the one version of bundle that a log entry without
// inclusion proof fits in, as cosign's annotations have it.
const bundleV01 = "application/vnd.dev.sigstore.bundle+json;version=0.1"

// parseBundle reads a sigstore bundle that `cosign sign` or another signer has made.
func parseBundle(content []byte) (*payload, error) {
	var object struct{}
	if err := strictJSON(content, &object); err != nil {
		return nil, fmt.Errorf("the bundle is %w", err)
	}
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(content); err != nil {
		return nil, errors.New("the bundle is not a sigstore bundle of a known version")
	}
	if err := checkMaterial(b.GetVerificationMaterial()); err != nil {
		return nil, err
	}
	c := &payload{sigstore: &sigstorePayload{entity: b}, claims: map[string]string{}}
	if message := b.GetMessageSignature(); message != nil {
		signed := hex.EncodeToString(message.GetMessageDigest().GetDigest())
		c.signs = func(d digest.Digest) bool { return d.Encoded() == signed }
		return c, nil
	}
	var statement signatures.Statement
	if err := strictJSON(b.GetDsseEnvelope().GetPayload(), &statement); err != nil {
		return nil, fmt.Errorf("the bundle's statement is %w", err)
	}
	if statement.PredicateType != signatures.PredicateCosignSign {
		return nil, errors.New("the bundle is an attestation, and no signature")
	}
	c.signs = func(d digest.Digest) bool { return statement.HasDigest(hexOf(d)) }
	c.claims["predicateType"] = statement.PredicateType
	if len(statement.Subject) > 0 {
		for key, value := range claimsOf(statement.Subject[0].Annotations) {
			c.claims[key] = value
		}
	}
	return c, nil
}

// checkMaterial bounds what the verification of a bundle will parse.
func checkMaterial(m *protobundle.VerificationMaterial) error {
	certificates := m.GetX509CertificateChain().GetCertificates()
	if c := m.GetCertificate(); c != nil {
		certificates = append(certificates, c)
	}
	size := 0
	for _, c := range certificates {
		size += len(c.GetRawBytes())
		if err := der.Check(c.GetRawBytes()); err != nil {
			return fmt.Errorf("the bundle's certificate cannot be read: %w", err)
		}
	}
	if size > der.MaxBytes {
		return fmt.Errorf("the bundle's certificates have %d bytes, more than %d", size, der.MaxBytes)
	}
	timestamps := m.GetTimestampVerificationData().GetRfc3161Timestamps()
	if len(timestamps) > maxEvidence || len(m.GetTlogEntries()) > maxEvidence {
		return fmt.Errorf("the bundle has more than %d timestamps or log entries", maxEvidence)
	}
	for _, t := range timestamps {
		if err := der.Check(t.GetSignedTimestamp()); err != nil {
			return fmt.Errorf("the bundle's timestamp cannot be read: %w", err)
		}
	}
	return nil
}

// parseCosign reads a layer of cosign's classic form, and makes of it the bundle
// that it would be today.
func parseCosign(content []byte) (*payload, error) {
	var layer signatures.CosignContent
	if err := strictJSON(content, &layer); err != nil {
		return nil, fmt.Errorf("the content is %w", err)
	}
	c, err := parsePayload(layer.Payload, payloadCosign)
	if err != nil {
		return nil, err
	}
	signature, err := base64.StdEncoding.DecodeString(layer.Annotations[signatures.AnnotationCosignSignature])
	if err != nil || len(signature) == 0 {
		return nil, fmt.Errorf("the annotation %s is not a signature in base64", signatures.AnnotationCosignSignature)
	}
	material, err := cosignMaterial(layer.Annotations)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(layer.Payload)
	b, err := bundle.NewBundle(&protobundle.Bundle{
		MediaType: bundleV01, VerificationMaterial: material,
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     signature,
		}},
	})
	if err != nil {
		return nil, errors.New("the layer's annotations make no signature")
	}
	c.sigstore = &sigstorePayload{entity: b, payload: layer.Payload}
	if len(layer.Annotations[signatures.AnnotationCosignChain]) > 2*der.MaxBytes { // in PEM
		return nil, fmt.Errorf("the annotation %s has more than %d bytes", signatures.AnnotationCosignChain, 2*der.MaxBytes)
	}
	if chain := parseChain(layer.Annotations[signatures.AnnotationCosignChain]); len(chain) > 0 {
		c.sigstore.entity = withChain{b, chain}
	}
	return c, nil
}

// cosignMaterial reads the key, the log entry and the time from the annotations.
func cosignMaterial(annotations map[string]string) (*protobundle.VerificationMaterial, error) {
	m := &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}}
	if text := annotations[signatures.AnnotationCosignCertificate]; text != "" {
		block, _ := pem.Decode([]byte(text))
		if block == nil {
			return nil, fmt.Errorf("the annotation %s is not a certificate in PEM", signatures.AnnotationCosignCertificate)
		}
		if err := der.Check(block.Bytes); err != nil {
			return nil, fmt.Errorf("the certificate cannot be read: %w", err)
		}
		m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
			Certificates: []*protocommon.X509Certificate{{RawBytes: block.Bytes}},
		}}
	}
	if text := annotations[signatures.AnnotationCosignBundle]; text != "" {
		entry, err := logEntry(text)
		if err != nil {
			return nil, fmt.Errorf("the annotation %s: %w", signatures.AnnotationCosignBundle, err)
		}
		m.TlogEntries = []*protorekor.TransparencyLogEntry{entry}
	}
	if text := annotations[signatures.AnnotationCosignTimestamp]; text != "" {
		var t struct {
			SignedRFC3161Timestamp []byte
		}
		if err := strictJSON([]byte(text), &t); err != nil {
			return nil, fmt.Errorf("the annotation %s is %w", signatures.AnnotationCosignTimestamp, err)
		}
		if err := der.Check(t.SignedRFC3161Timestamp); err != nil {
			return nil, fmt.Errorf("the timestamp cannot be read: %w", err)
		}
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: t.SignedRFC3161Timestamp}},
		}
	}
	return m, nil
}

// logEntry reads cosign's RekorBundle: an entry with the log's promise to include it.
func logEntry(text string) (*protorekor.TransparencyLogEntry, error) {
	var b struct {
		SignedEntryTimestamp []byte
		Payload              struct {
			Body           []byte `json:"body"`
			IntegratedTime int64  `json:"integratedTime"`
			LogIndex       int64  `json:"logIndex"`
			LogID          string `json:"logID"`
		}
	}
	if err := strictJSON([]byte(text), &b); err != nil {
		return nil, fmt.Errorf("it is %w", err)
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if json.Unmarshal(b.Payload.Body, &kind) != nil {
		return nil, errors.New("the log entry's body is not JSON")
	}
	id, err := hex.DecodeString(b.Payload.LogID)
	if err != nil {
		return nil, errors.New("the log's ID is not hexadecimal")
	}
	return &protorekor.TransparencyLogEntry{
		LogIndex: b.Payload.LogIndex, LogId: &protocommon.LogId{KeyId: id}, IntegratedTime: b.Payload.IntegratedTime,
		KindVersion:       &protorekor.KindVersion{Kind: kind.Kind, Version: kind.Version},
		InclusionPromise:  &protorekor.InclusionPromise{SignedEntryTimestamp: b.SignedEntryTimestamp},
		CanonicalizedBody: b.Payload.Body,
	}, nil
}

// parseChain reads intermediate certificates, and leaves out invalid ones.
func parseChain(text string) []*x509.Certificate {
	const most = 16
	var chain []*x509.Certificate
	for rest := []byte(text); len(chain) < most; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err == nil && c.IsCA && c.CheckSignatureFrom(c) != nil {
			chain = append(chain, c)
		}
	}
	return chain
}

// withChain is a bundle that brings intermediate certificates, which help to find
// the way to a trusted root and are not trusted themselves.
type withChain struct {
	*bundle.Bundle
	chain []*x509.Certificate
}

// VerificationContent implements verify.SignedEntity.
func (b withChain) VerificationContent() (verify.VerificationContent, error) {
	content, err := b.Bundle.VerificationContent()
	if err != nil {
		return nil, err
	}
	return chainContent{content, b.chain}, nil
}

type chainContent struct {
	verify.VerificationContent
	chain []*x509.Certificate
}

// Intermediates implements verify.VerificationContent.
func (c chainContent) Intermediates() []*x509.Certificate { return c.chain }
