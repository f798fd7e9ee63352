package signtest

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"tallyman/signatures"
)

// Sigstore is a sigstore instance of one's own: authority, log, timestamps.
type Sigstore struct {
	t testing.TB
	*ca.VirtualSigstore
}

// NewSigstore makes one.
func NewSigstore(t testing.TB) *Sigstore {
	t.Helper()
	v, err := ca.NewVirtualSigstore()
	must(t, err)
	return &Sigstore{t, v}
}

// TrustedRoot is its trusted_root.json.
func (s *Sigstore) TrustedRoot() string {
	s.t.Helper()
	fixed := func(logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
		for id, log := range logs { // there they are in hexadecimal
			raw, err := hex.DecodeString(id)
			must(s.t, err)
			log.ID = raw
		}
		return logs
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, s.FulcioCertificateAuthorities(),
		fixed(s.CTLogs()), s.TimestampingAuthorities(), fixed(s.RekorLogs()))
	must(s.t, err)
	content, err := trusted.MarshalJSON()
	must(s.t, err)
	return string(content)
}

// Evidence lists the parts of a keyless signature.
type Evidence struct{ Log, Timestamp bool }

// Both is the form of public sigstore.
var Both = Evidence{Log: true, Timestamp: true}

// Cosign returns a keyless signature of cosign's classic form.
func (s *Sigstore) Cosign(identity, issuer string, payload []byte, with Evidence) signatures.Signature {
	s.t.Helper()
	entity, err := s.Sign(identity, issuer, payload)
	must(s.t, err)
	signed, err := entity.SignatureContent()
	must(s.t, err)
	content, err := entity.VerificationContent()
	must(s.t, err)
	certificate, err := cryptoutils.MarshalCertificateToPEM(content.Certificate())
	must(s.t, err)
	annotations := map[string]string{
		signatures.AnnotationCosignSignature:   base64.StdEncoding.EncodeToString(signed.Signature()),
		signatures.AnnotationCosignCertificate: string(certificate),
	}
	if with.Log {
		annotations[signatures.AnnotationCosignBundle] = s.rekorBundle(entity)
	}
	if with.Timestamp {
		timestamps, err := entity.Timestamps()
		must(s.t, err)
		encoded, err := json.Marshal(map[string]any{"SignedRFC3161Timestamp": timestamps[0]})
		must(s.t, err)
		annotations[signatures.AnnotationCosignTimestamp] = string(encoded)
	}
	return Cosign(s.t, payload, annotations)
}

// logEntry returns the entity's log entry, whole: the test authority leaves things
// out.
func (s *Sigstore) logEntry(entity *ca.TestEntity) *protorekor.TransparencyLogEntry {
	s.t.Helper()
	entries, err := entity.TlogEntries()
	must(s.t, err)
	entry := entries[0].TransparencyLogEntry()
	var kind struct{ Kind, APIVersion string }
	must(s.t, json.Unmarshal(entry.GetCanonicalizedBody(), &kind))
	entry.KindVersion = &protorekor.KindVersion{Kind: kind.Kind, Version: kind.APIVersion}
	promise, err := s.RekorSignPayload(tlog.RekorPayload{
		Body:           base64.StdEncoding.EncodeToString(entry.GetCanonicalizedBody()),
		IntegratedTime: entry.GetIntegratedTime(), LogIndex: entry.GetLogIndex(), LogID: hex.EncodeToString(entry.GetLogId().GetKeyId()),
	})
	must(s.t, err)
	entry.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
	return entry
}

func (s *Sigstore) rekorBundle(entity *ca.TestEntity) string {
	s.t.Helper()
	entry := s.logEntry(entity)
	encoded, err := json.Marshal(map[string]any{
		"SignedEntryTimestamp": entry.GetInclusionPromise().GetSignedEntryTimestamp(),
		"Payload": map[string]any{
			"body": entry.GetCanonicalizedBody(), "integratedTime": entry.GetIntegratedTime(),
			"logIndex": entry.GetLogIndex(), "logID": hex.EncodeToString(entry.GetLogId().GetKeyId()),
		},
	})
	must(s.t, err)
	return string(encoded)
}

// Bundle returns a keyless bundle around a statement, logged at a time.
func (s *Sigstore) Bundle(identity, issuer string, statement []byte, at time.Time, with Evidence) signatures.Signature {
	s.t.Helper()
	entity, err := s.AttestAtTime(identity, issuer, statement, at, true)
	must(s.t, err)
	signed, err := entity.SignatureContent()
	must(s.t, err)
	content, err := entity.VerificationContent()
	must(s.t, err)
	material := &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_Certificate{
		Certificate: &protocommon.X509Certificate{RawBytes: content.Certificate().Raw},
	}}
	if with.Log {
		material.TlogEntries = []*protorekor.TransparencyLogEntry{s.logEntry(entity)}
	}
	if with.Timestamp {
		timestamps, err := entity.Timestamps()
		must(s.t, err)
		material.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: timestamps[0]}},
		}
	}
	return newBundle(s.t, &protobundle.Bundle{
		MediaType: "application/vnd.dev.sigstore.bundle.v0.3+json", VerificationMaterial: material,
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: statementType, Signatures: []*protodsse.Signature{{Sig: signed.Signature()}},
		}},
	})
}

// FulcioPEM is the authority's root and intermediate certificate.
func (s *Sigstore) FulcioPEM() string {
	s.t.Helper()
	authority, ok := s.FulcioCertificateAuthorities()[0].(*root.FulcioCertificateAuthority)
	if !ok {
		s.t.Fatal("the authority is of another kind")
	}
	encoded, err := cryptoutils.MarshalCertificatesToPEM(append(authority.Intermediates[:len(authority.Intermediates):len(authority.Intermediates)], authority.Root))
	must(s.t, err)
	return string(encoded)
}

// RekorPEM is the log's public key.
func (s *Sigstore) RekorPEM() string {
	s.t.Helper()
	for _, log := range s.RekorLogs() {
		encoded, err := cryptoutils.MarshalPublicKeyToPEM(log.PublicKey)
		must(s.t, err)
		return string(encoded)
	}
	s.t.Fatal("no log")
	return ""
}
