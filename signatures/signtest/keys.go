// Package signtest makes signatures for tests: of every form that a registry gets,
// by keys and authorities that are made as the test runs.
package signtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
	"google.golang.org/protobuf/encoding/protojson"

	"tallyman/signatures"
)

// Key signs as cosign does.
type Key struct {
	t       testing.TB
	private crypto.Signer
	signer  signature.Signer
}

// Algorithms are the kinds of keys that NewKey makes.
var Algorithms = []string{"ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ecdsa-p384-sha256", "rsa-2048", "rsa-pss", "ed25519", "ed25519ph"}

// NewKey makes a key pair, and signs in the way that the algorithm says.
func NewKey(t testing.TB, algorithm string) *Key {
	t.Helper()
	k := &Key{t: t}
	var opts []signature.LoadOption
	var err error
	switch algorithm {
	case "ecdsa-p256":
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		k.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		opts = append(opts, options.WithHash(crypto.SHA384))
	case "ecdsa-p384-sha256":
		k.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa-p521":
		k.private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		opts = append(opts, options.WithHash(crypto.SHA512))
	case "rsa-2048":
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-pss":
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
		opts = append(opts, options.WithRSAPSS(&rsa.PSSOptions{Hash: crypto.SHA256}))
	case "ed25519":
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	case "ed25519ph":
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
		opts = append(opts, options.WithED25519ph())
	default:
		t.Fatalf("no algorithm %q", algorithm)
	}
	must(t, err)
	k.signer, err = signature.LoadSignerWithOpts(k.private, opts...)
	must(t, err)
	return k
}

// PEM returns the public key.
func (k *Key) PEM() string {
	k.t.Helper()
	encoded, err := cryptoutils.MarshalPublicKeyToPEM(k.private.Public())
	must(k.t, err)
	return string(encoded)
}

// Hint names the key as bundles do.
func (k *Key) Hint() string {
	k.t.Helper()
	der, err := cryptoutils.MarshalPublicKeyToDER(k.private.Public())
	must(k.t, err)
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (k *Key) sign(message []byte) []byte {
	k.t.Helper()
	signed, err := k.signer.SignMessage(bytes.NewReader(message))
	must(k.t, err)
	return signed
}

// Payload is the simple signing payload for an image, as cosign writes it.
func Payload(subject digest.Digest, reference, payloadType string, optional map[string]any) []byte {
	payload, err := json.Marshal(map[string]any{
		"critical": map[string]any{
			"identity": map[string]any{"docker-reference": reference},
			"image":    map[string]any{"docker-manifest-digest": subject.String()},
			"type":     payloadType,
		},
		"optional": optional,
	})
	if err != nil {
		panic(err) // texts are always JSON
	}
	return payload
}

// CosignPayload is the payload of `cosign sign`.
func CosignPayload(subject digest.Digest, reference string, optional map[string]any) []byte {
	return Payload(subject, reference, "cosign container image signature", optional)
}

// Cosign returns a signature of cosign's classic form.
func (k *Key) Cosign(payload []byte) signatures.Signature {
	k.t.Helper()
	return Cosign(k.t, payload, map[string]string{
		signatures.AnnotationCosignSignature: base64.StdEncoding.EncodeToString(k.sign(payload)),
	})
}

// Cosign puts a payload and annotations together.
func Cosign(t testing.TB, payload []byte, annotations map[string]string) signatures.Signature {
	t.Helper()
	content, err := json.Marshal(signatures.CosignContent{
		MIMEType: "application/vnd.dev.cosign.simplesigning.v1+json", Payload: payload, Annotations: annotations,
	})
	must(t, err)
	return signatures.Signature{Type: signatures.TypeCosign, Content: content}
}

// Statement is the in-toto statement of a bundle.
func Statement(subject digest.Digest, predicateType string, annotations map[string]any) []byte {
	about := map[string]any{"digest": map[string]string{subject.Algorithm().String(): subject.Encoded()}}
	if annotations != nil {
		about["annotations"] = annotations
	}
	statement, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v1", "subject": []any{about}, "predicateType": predicateType, "predicate": map[string]any{},
	})
	if err != nil {
		panic(err) // texts are always JSON
	}
	return statement
}

const statementType = "application/vnd.in-toto+json"

// preAuthentication is DSSE's encoding of the signed content (dsse/protocol.md).
func preAuthentication(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statementType), statementType, len(payload), payload)
}

// Bundle returns a sigstore bundle around a statement, signed with the key.
func (k *Key) Bundle(statement []byte) signatures.Signature {
	k.t.Helper()
	return newBundle(k.t, &protobundle.Bundle{
		MediaType:            "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: k.material(),
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: statement, PayloadType: statementType,
			Signatures: []*protodsse.Signature{{Sig: k.sign(preAuthentication(statement))}},
		}},
	})
}

// MessageBundle returns a sigstore bundle that signs the manifest itself.
func (k *Key) MessageBundle(manifest []byte) signatures.Signature {
	k.t.Helper()
	sum := sha256.Sum256(manifest)
	return newBundle(k.t, &protobundle.Bundle{
		MediaType:            "application/vnd.dev.sigstore.bundle.v0.3+json",
		VerificationMaterial: k.material(),
		Content: &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
			MessageDigest: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: sum[:]},
			Signature:     k.sign(manifest),
		}},
	})
}

func (k *Key) material() *protobundle.VerificationMaterial {
	return &protobundle.VerificationMaterial{Content: &protobundle.VerificationMaterial_PublicKey{
		PublicKey: &protocommon.PublicKeyIdentifier{Hint: k.Hint()},
	}}
}

func newBundle(t testing.TB, b *protobundle.Bundle) signatures.Signature {
	t.Helper()
	content, err := protojson.Marshal(b)
	must(t, err)
	var compact bytes.Buffer // protojson adds space by chance
	must(t, json.Compact(&compact, content))
	return signatures.Signature{Type: signatures.TypeBundle, Content: compact.Bytes()}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
