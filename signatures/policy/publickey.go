package policy

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"tallyman/signatures"
)

// publicKey is one trusted key.
type publicKey struct {
	named
	key      crypto.PublicKey
	hint     string // as a bundle names the key: base64 of the SHA-256 of its DER
	material root.TrustedMaterial
	verifier *verify.Verifier
	tlog     bool
}

// newPublicKeys makes a root of each key.
func newPublicKeys(name string, p *signatures.PublicKey, files *fileReader) ([]rootOfTrust, error) {
	type source struct{ name, path, data string }
	sources := []source{}
	if p.KeyPath != "" || p.KeyData != "" || len(p.KeyPaths) == 0 {
		sources = append(sources, source{cmp.Or(name, baseOf(p.KeyPath, "public key")), p.KeyPath, p.KeyData})
	}
	for _, path := range p.KeyPaths {
		sources = append(sources, source{baseOf(path, ""), path, ""})
	}
	var log root.TrustedMaterial
	if p.RekorPath != "" || p.RekorData != "" {
		content, err := files.either("rekorKey", p.RekorPath, p.RekorData)
		if err != nil {
			return nil, err
		}
		if log, err = logMaterial(content, nil); err != nil {
			return nil, fmt.Errorf("rekorKey: %w", err)
		}
	}
	var roots []rootOfTrust
	for _, s := range sources {
		content, err := files.either("key", s.path, s.data)
		if err != nil {
			return nil, err
		}
		keys, err := parsePublicKeys(content)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", cmp.Or(s.path, "keyData"), err)
		}
		for _, key := range keys {
			r, err := newPublicKey(s.name, key, log)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", cmp.Or(s.path, "keyData"), err)
			}
			roots = append(roots, r)
		}
	}
	return roots, nil
}

func baseOf(path, other string) string {
	if path == "" {
		return other
	}
	return filepath.Base(path)
}

// parsePublicKeys reads all keys in PEM.
func parsePublicKeys(content []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for _, block := range pemBlocks(content) {
		key, err := cryptoutils.UnmarshalPEMToPublicKey(block)
		if err != nil {
			return nil, fmt.Errorf("not a public key: %w", err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key: want PEM")
	}
	return keys, nil
}

func newPublicKey(name string, key crypto.PublicKey, log root.TrustedMaterial) (*publicKey, error) {
	verifiers, err := verifiersOf(key)
	if err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(keyID(key))
	if err != nil {
		return nil, err
	}
	r := &publicKey{named: named("key " + name), key: key, hint: base64.StdEncoding.EncodeToString(id), tlog: log != nil}
	trusted := root.NewExpiringKey(anyVerifier(verifiers), time.Time{}, time.Time{})
	keys := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return trusted, nil })
	r.material = keys
	wanted := []verify.VerifierOption{verify.WithNoObserverTimestamps(), verify.WithoutStatementPredicate()}
	if log != nil {
		r.material = root.TrustedMaterialCollection{keys, log}
		wanted = []verify.VerifierOption{verify.WithTransparencyLog(1), verify.WithIntegratedTimestamps(1), verify.WithoutStatementPredicate()}
	}
	r.verifier, err = verify.NewVerifier(r.material, wanted...)
	return r, err
}

// verify implements rootOfTrust.
func (r *publicKey) verify(c *payload, subject digest.Digest, _ time.Time) (*signer, *failure) {
	if c.sigstore == nil {
		return nil, errNotApplicable
	}
	content, err := c.sigstore.entity.VerificationContent()
	if err != nil || content.PublicKey() == nil {
		return nil, errNotApplicable
	}
	entries, err := c.sigstore.entity.TlogEntries()
	if r.tlog && (err != nil || len(entries) == 0) {
		return nil, &failure{signatures.ReasonLogEntryMissing, "the signature has no entry of a transparency log"}
	}
	result, err := r.verifier.Verify(c.sigstore.entity, verify.NewPolicy(c.sigstore.artifact(subject), verify.WithKey()))
	if err == nil {
		return &signer{
			issuedBy: imagev1.SignatureIssuer{SignatureGenericEntity: imagev1.SignatureGenericEntity{CommonName: r.name()}},
			issuedTo: imagev1.SignatureSubject{
				SignatureGenericEntity: imagev1.SignatureGenericEntity{CommonName: r.name()}, PublicKeyID: keyID(r.key),
			},
			created: earliest(result.VerifiedTimestamps),
		}, nil
	}
	switch {
	case !failedAt(err, failedSignature) && c.sigstore.check(r.material, subject) == nil:
		return nil, &failure{signatures.ReasonLogEntryMissing, "the signature has no entry of a transparency log that can be verified"}
	case content.PublicKey().Hint() == r.hint:
		return nil, &failure{signatures.ReasonSignatureInvalid, "the signature is not one of its content by the key that it names"}
	}
	return nil, &failure{signatures.ReasonKeyNotTrusted, "the signature is not by a trusted key, or not one of its content"}
}

// verifiersOf returns the ways in which signatures by a key are made: sigstore's
// default for it, and those of older and other tools.
func verifiersOf(key crypto.PublicKey) ([]signature.Verifier, error) {
	var all []signature.Verifier
	for _, load := range []func() (signature.Verifier, error){
		func() (signature.Verifier, error) { return signature.LoadDefaultVerifier(key) },
		// cosign signs with Ed25519ph.
		func() (signature.Verifier, error) {
			return signature.LoadVerifierWithOpts(key, options.WithED25519ph())
		},
		// Old cosign used SHA-256 with every curve.
		func() (signature.Verifier, error) { return signature.LoadVerifier(key, crypto.SHA256) },
		func() (signature.Verifier, error) {
			return signature.LoadVerifierWithOpts(key, options.WithRSAPSS(&rsa.PSSOptions{Hash: crypto.SHA256}))
		},
	} {
		if v, err := load(); err == nil {
			all = append(all, v)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("keys of type %T are not supported: want RSA, ECDSA or Ed25519", key)
	}
	return all, nil
}

// anyVerifier takes a signature that one of its verifiers takes.
type anyVerifier []signature.Verifier

// PublicKey implements signature.Verifier.
func (a anyVerifier) PublicKey(o ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return a[0].PublicKey(o...)
}

// VerifySignature implements signature.Verifier.
func (a anyVerifier) VerifySignature(sig, message io.Reader, o ...signature.VerifyOption) error {
	signed, err := io.ReadAll(sig)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(message)
	if err != nil {
		return err
	}
	var errs []error
	for _, v := range a {
		err := v.VerifySignature(bytes.NewReader(signed), bytes.NewReader(content), o...)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// logMaterial is the trust in a transparency log with the key, and in the
// authorities.
func logMaterial(key []byte, authorities []root.CertificateAuthority) (root.TrustedMaterial, error) {
	keys, err := parsePublicKeys(key)
	if err != nil {
		return nil, err
	}
	logs := map[string]*root.TransparencyLog{}
	for _, key := range keys {
		der, err := cryptoutils.MarshalPublicKeyToDER(key)
		if err != nil {
			return nil, err
		}
		id := sha256.Sum256(der)
		logs[hex.EncodeToString(id[:])] = &root.TransparencyLog{
			ID: id[:], PublicKey: key, HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
			ValidityPeriodStart: time.Unix(1, 0), // it has to have one; a key by itself does not say
		}
	}
	return &fixedMaterial{logs: logs, authorities: authorities}, nil
}

// fixedMaterial is trust in the given keys or certificates, without a trusted_root.json.
type fixedMaterial struct {
	root.BaseTrustedMaterial
	logs        map[string]*root.TransparencyLog
	authorities []root.CertificateAuthority
}

// RekorLogs implements root.TrustedMaterial.
func (m *fixedMaterial) RekorLogs() map[string]*root.TransparencyLog { return m.logs }

// FulcioCertificateAuthorities implements root.TrustedMaterial.
func (m *fixedMaterial) FulcioCertificateAuthorities() []root.CertificateAuthority {
	return m.authorities
}
