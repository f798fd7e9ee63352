package signtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/notaryproject/notation-core-go/signature/cose"
	"github.com/notaryproject/notation-core-go/signature/jws"
	"github.com/notaryproject/notation-core-go/testhelper"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/signer"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
)

// GPG is an OpenPGP key.
type GPG struct {
	t      testing.TB
	Entity *openpgp.Entity
}

// NewGPG makes a key at a time.
func NewGPG(t testing.TB, made time.Time) *GPG {
	t.Helper()
	return newGPG(t, made, packet.PubKeyAlgoEdDSA)
}

// NewRSAGPG is NewGPG for a key that older programs can read.
func NewRSAGPG(t testing.TB, made time.Time) *GPG {
	t.Helper()
	return newGPG(t, made, packet.PubKeyAlgoRSA)
}

func newGPG(t testing.TB, made time.Time, algorithm packet.PublicKeyAlgorithm) *GPG {
	t.Helper()
	entity, err := openpgp.NewEntity("Release", "", "release@example.com", &packet.Config{
		Time: func() time.Time { return made }, Algorithm: algorithm,
	})
	must(t, err)
	return &GPG{t, entity}
}

// Expire limits the key's life, from when it was made.
func (g *GPG) Expire(after time.Duration) {
	g.t.Helper()
	seconds := uint32(after.Seconds())
	for _, identity := range g.Entity.Identities {
		identity.SelfSignature.KeyLifetimeSecs = &seconds
		must(g.t, identity.SelfSignature.SignUserId(identity.UserId.Id, g.Entity.PrimaryKey, g.Entity.PrivateKey, nil))
	}
}

// Armored is the public key.
func (g *GPG) Armored() string {
	g.t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	must(g.t, err)
	must(g.t, g.Entity.Serialize(w))
	must(g.t, w.Close())
	return b.String()
}

// GPGPayload is the payload of `skopeo --sign-by`.
func GPGPayload(subject digest.Digest, reference string) []byte {
	return Payload(subject, reference, "atomic container signature", map[string]any{"creator": "test", "timestamp": 1700000000})
}

// Sign returns a simple signing signature that is made at a time and expires after
// so long; 0 is never.
func (g *GPG) Sign(payload []byte, made time.Time, expires time.Duration) signatures.Signature {
	g.t.Helper()
	var b bytes.Buffer
	w, err := openpgp.Sign(&b, g.Entity, nil, &packet.Config{
		Time: func() time.Time { return made }, SigLifetimeSecs: uint32(expires.Seconds()),
	})
	must(g.t, err)
	_, err = w.Write(payload)
	must(g.t, err)
	must(g.t, w.Close())
	return signatures.Signature{Type: signatures.TypeAtomic, Content: b.Bytes()}
}

// Revoke revokes the key.
func (g *GPG) Revoke(at time.Time) {
	g.t.Helper()
	must(g.t, g.Entity.RevokeKey(packet.KeyCompromised, "lost", &packet.Config{Time: func() time.Time { return at }}))
}

// Notation is a notation signer with a certificate of its own.
type Notation struct {
	t     testing.TB
	tuple testhelper.RSACertTuple
}

// NewNotation makes one.
func NewNotation(t testing.TB, name string) *Notation {
	t.Helper()
	return &Notation{t, testhelper.GetRSASelfSignedSigningCertTuple(name)}
}

// Signer signs with notation-go.
func (n *Notation) Signer() notation.Signer {
	n.t.Helper()
	s, err := signer.NewGenericSigner(n.tuple.PrivateKey, []*x509.Certificate{n.tuple.Cert})
	must(n.t, err)
	return s
}

// TrustStore writes notation's truststore directory with the certificate in it.
func (n *Notation) TrustStore() string {
	n.t.Helper()
	dir := n.t.TempDir()
	n.WriteTrustStore(dir)
	return dir
}

// WriteTrustStore writes the certificate into a truststore directory.
func (n *Notation) WriteTrustStore(dir string) {
	n.t.Helper()
	at := filepath.Join(dir, "x509", "ca", "test")
	must(n.t, os.MkdirAll(at, 0o750))
	must(n.t, os.WriteFile(filepath.Join(at, "cert.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.tuple.Cert.Raw}), 0o600))
}

// Sign returns an envelope of the type, that expires after so long; 0 is never.
func (n *Notation) Sign(signatureType string, subject digest.Digest, expires time.Duration, metadata map[string]string) signatures.Signature {
	n.t.Helper()
	mediaType := jws.MediaTypeEnvelope
	if signatureType == signatures.TypeNotaryCOSE {
		mediaType = cose.MediaTypeEnvelope
	}
	envelope, _, err := n.Signer().Sign(context.Background(), imagespec.Descriptor{
		MediaType: imagespec.MediaTypeImageManifest, Digest: subject, Size: 123, Annotations: metadata,
	}, notation.SignerSignOptions{SignatureMediaType: mediaType, ExpiryDuration: expires, SigningAgent: "test"})
	must(n.t, err)
	return signatures.Signature{Type: signatureType, Content: envelope}
}

// PKI is a certificate authority with long-lived certificates.
type PKI struct {
	t    testing.TB
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewPKI makes one.
func NewPKI(t testing.TB) *PKI {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Test CA", Organization: []string{"Example"}},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().AddDate(100, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	p := &PKI{t: t, key: key}
	p.root = p.issue(template, template, key.Public())
	return p
}

func (p *PKI) issue(template, parent *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	p.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, p.key)
	must(p.t, err)
	c, err := x509.ParseCertificate(der)
	must(p.t, err)
	return c
}

// PEM is the root certificate.
func (p *PKI) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.root.Raw}))
}

// Cosign returns a signature of cosign's classic form by the holder of a certificate
// for an e-mail address, which is valid until a time.
func (p *PKI) Cosign(email string, until time.Time, payload []byte) signatures.Signature {
	p.t.Helper()
	key := NewKey(p.t, "ecdsa-p256")
	leaf := p.issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "signer"}, EmailAddresses: []string{email},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}, p.root, key.private.Public())
	return Cosign(p.t, payload, map[string]string{
		signatures.AnnotationCosignSignature:   base64.StdEncoding.EncodeToString(key.sign(payload)),
		signatures.AnnotationCosignCertificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})),
	})
}

// JSON makes JSON of a value.
func JSON(t testing.TB, value any) string {
	t.Helper()
	content, err := json.Marshal(value)
	must(t, err)
	return string(content)
}
