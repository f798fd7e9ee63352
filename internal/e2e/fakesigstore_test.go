package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	_ "github.com/sigstore/rekor/pkg/types/dsse/v0.0.1"         // a kind of log entry
	_ "github.com/sigstore/rekor/pkg/types/hashedrekord/v0.0.1" // a kind of log entry
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// The subjects of the fake sigstore's certificates.
const (
	fakeIssuer  = "https://issuer.example.test"
	fakeSubject = "dev@example.test"
)

// fakeSigstore is Fulcio, Rekor and a timestamp authority for cosign to talk to: the
// real ones cannot be had offline.
type fakeSigstore struct {
	t           testing.TB
	url         string
	trustedRoot string // file
	logKey      string // file with the log's public key
	token       string // file with an OIDC token

	log          *ca.VirtualSigstore
	intermediate *x509.Certificate
	key          *ecdsa.PrivateKey
	tsa          *x509.Certificate
	tsaKey       *ecdsa.PrivateKey
	index        int64
}

func startFakeSigstore(t testing.TB) *fakeSigstore {
	t.Helper()
	f := &fakeSigstore{t: t}
	var err error
	f.log, err = ca.NewVirtualSigstore()
	f.must(err)
	rootCertificate, rootKey, err := ca.GenerateRootCa()
	f.must(err)
	f.intermediate, f.key, err = ca.GenerateFulcioIntermediate(rootCertificate, rootKey)
	f.must(err)
	tsaIntermediate, tsaIntermediateKey, err := ca.GenerateTSAIntermediate(rootCertificate, rootKey)
	f.must(err)
	f.tsaKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	f.tsa, err = ca.GenerateTSALeafCert(time.Now().Add(-time.Minute), f.tsaKey, tsaIntermediate, tsaIntermediateKey)
	f.must(err)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/signingCert", f.certifyV1)
	mux.HandleFunc("POST /api/v2/signingCert", f.certifyV2)
	mux.HandleFunc("POST /api/v1/timestamp", f.timestamp)
	mux.HandleFunc("POST /api/v1/log/entries", f.record)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	f.url = server.URL
	f.write(rootCertificate, tsaIntermediate)
	return f
}

func (f *fakeSigstore) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// write writes the trusted root and the token.
func (f *fakeSigstore) write(rootCertificate, tsaIntermediate *x509.Certificate) {
	f.t.Helper()
	withIDs := func(logs map[string]*root.TransparencyLog) map[string]*root.TransparencyLog {
		for id, log := range logs {
			raw, err := hex.DecodeString(id)
			f.must(err)
			log.ID = raw
		}
		return logs
	}
	since := time.Now().Add(-5 * time.Minute)
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: rootCertificate, Intermediates: []*x509.Certificate{f.intermediate}, ValidityPeriodStart: since, URI: f.url,
		}},
		withIDs(f.log.CTLogs()),
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: rootCertificate, Intermediates: []*x509.Certificate{tsaIntermediate}, Leaf: f.tsa, ValidityPeriodStart: since, URI: f.url,
		}},
		withIDs(f.log.RekorLogs()))
	f.must(err)
	content, err := trusted.MarshalJSON()
	f.must(err)
	dir := f.t.TempDir()
	f.trustedRoot, f.token = filepath.Join(dir, "trusted_root.json"), filepath.Join(dir, "token")
	writeFile(f.t, f.trustedRoot, string(content))
	for _, log := range f.log.RekorLogs() {
		encoded, err := cryptoutils.MarshalPublicKeyToPEM(log.PublicKey)
		f.must(err)
		f.logKey = filepath.Join(dir, "log.pub")
		writeFile(f.t, f.logKey, string(encoded))
	}
	now := time.Now()
	claims := fmt.Sprintf(`{"iss":%q,"aud":"sigstore","sub":%q,"email":%q,"email_verified":true,"iat":%d,"exp":%d}`,
		fakeIssuer, fakeSubject, fakeSubject, now.Unix(), now.Add(2*time.Hour).Unix())
	// cosign 2 wants a signed token; only Fulcio cares about its issuer.
	writeFile(f.t, f.token, strings.Join([]string{
		base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)), base64.RawURLEncoding.EncodeToString([]byte(claims)), "c2lnbmF0dXJl",
	}, "."))
}

// certifyV1 is Fulcio's old API, which cosign 2 talks.
func (f *fakeSigstore) certifyV1(w http.ResponseWriter, r *http.Request) {
	var request struct {
		PublicKey struct{ Content []byte }
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	chain, err := f.certify(string(request.PublicKey.Content))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, strings.Join(chain, ""))
}

// certifyV2 is Fulcio's CreateSigningCertificate.
func (f *fakeSigstore) certifyV2(w http.ResponseWriter, r *http.Request) {
	var request struct {
		PublicKeyRequest struct {
			PublicKey struct{ Content string }
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	chain, err := f.certify(request.PublicKeyRequest.PublicKey.Content)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answerJSON(w, http.StatusOK, map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": chain}}})
}

// certify returns a certificate for the key, and the one that signed it.
func (f *fakeSigstore) certify(key string) (chain []string, err error) {
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(key))
	if err != nil {
		return nil, err
	}
	issuer, err := asn1.MarshalWithParams(fakeIssuer, "utf8")
	if err != nil {
		return nil, err
	}
	oid := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), EmailAddresses: []string{fakeSubject},
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: append(oid[:8:8], 1), Value: []byte(fakeIssuer)}, {Id: append(oid[:8:8], 8), Value: issuer}},
	}, f.intermediate, public, f.key)
	if err != nil {
		return nil, err
	}
	encoded := func(der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return []string{encoded(der), encoded(f.intermediate.Raw)}, nil
}

// timestamp is RFC 3161.
func (f *fakeSigstore) timestamp(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	request, err := timestamp.ParseRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	stamp := timestamp.Timestamp{
		HashAlgorithm: request.HashAlgorithm, HashedMessage: request.HashedMessage, Time: time.Now(), Nonce: request.Nonce,
		Policy: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 2}, AddTSACertificate: request.Certificates, ExtraExtensions: request.Extensions,
	}
	answer, err := stamp.CreateResponseWithOpts(f.tsa, f.tsaKey, crypto.SHA256)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(answer)
}

// record is Rekor's createLogEntry.
func (f *fakeSigstore) record(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	entry, err := f.enter(r, body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	id := hex.EncodeToString(sha256.New().Sum(nil))
	w.Header().Set("ETag", id) // cosign 3 reads it
	w.Header().Set("Location", "/api/v1/log/entries/"+id)
	answerJSON(w, http.StatusCreated, map[string]any{id: entry})
}

func (f *fakeSigstore) enter(r *http.Request, body []byte) (map[string]any, error) {
	proposed, err := models.UnmarshalProposedEntry(bytes.NewReader(body), runtime.JSONConsumer())
	if err != nil {
		return nil, err
	}
	entry, err := types.UnmarshalEntry(proposed)
	if err != nil {
		if entry, err = types.CreateVersionedEntry(proposed); err != nil {
			return nil, err
		}
	}
	canonical, err := types.CanonicalizeEntry(r.Context(), entry)
	if err != nil {
		return nil, err
	}
	proof, err := f.log.GetInclusionProof(canonical)
	if err != nil {
		return nil, err
	}
	if proof.Hashes == nil {
		proof.Hashes = []string{} // null is not valid
	}
	logID, err := f.log.RekorLogID()
	if err != nil {
		return nil, err
	}
	now := time.Now().Unix()
	promise, err := f.log.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(canonical), IntegratedTime: now, LogIndex: f.index, LogID: logID,
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"body": canonical, "integratedTime": now, "logID": logID, "logIndex": f.index,
		"verification": map[string]any{"signedEntryTimestamp": promise, "inclusionProof": proof},
	}, nil
}

func answerJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client has left if this fails
}
