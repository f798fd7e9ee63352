package main

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	rekor "github.com/sigstore/cosign/v3/pkg/cosign/bundle"
	"github.com/sigstore/cosign/v3/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// cosignCorpus has cases for cosign, each of one signature.
type cosignCorpus struct {
	TrustedRoot, Key string
	Policies         []cosignPolicy
	Cases            []struct{ Policy, Signature int }
}

// cosignPolicy is the options of a verification: by the key, or by an identity.
type cosignPolicy struct {
	ByKey           bool
	Issuer, Subject string
	Log, Timestamp  bool
}

// judgeCosign asks cosign's library.
func (c *corpus) judgeCosign(out *verdicts) {
	trusted, err := root.NewTrustedRootFromJSON([]byte(c.Cosign.TrustedRoot))
	if err != nil {
		fail(err)
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(c.Cosign.Key))
	if err != nil {
		fail(err)
	}
	verifier, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		fail(err)
	}
	for _, k := range c.Cosign.Cases {
		p := c.Cosign.Policies[k.Policy]
		options := &cosign.CheckOpts{
			ClaimVerifier: cosign.SimpleClaimVerifier, Offline: true, IgnoreSCT: true, IgnoreTlog: !p.Log, UseSignedTimestamps: p.Timestamp, TrustedMaterial: trusted,
		}
		if p.ByKey {
			options.SigVerifier, options.TrustedMaterial = verifier, nil
		} else {
			options.Identities = []cosign.Identity{{Issuer: p.Issuer, Subject: p.Subject}}
		}
		s := c.Signatures[k.Signature]
		if s.Type == "SigstoreBundleV1" {
			out.CosignCases += bit(c.verifyBundle(options, s.Content) == nil)
		} else {
			out.CosignCases += bit(c.verifyClassic(options, s.Content) == nil)
		}
	}
}

func (c *corpus) verifyBundle(options *cosign.CheckOpts, content []byte) error {
	b := &bundle.Bundle{}
	if err := b.UnmarshalJSON(content); err != nil {
		return err
	}
	options.NewBundleFormat = true
	subject, err := hex.DecodeString(digest.FromBytes(c.Manifest).Encoded())
	if err != nil {
		return err
	}
	_, err = cosign.VerifyNewBundle(context.Background(), options, verify.WithArtifactDigest("sha256", subject), b)
	return err
}

// verifyClassic verifies a layer of a signature manifest.
func (c *corpus) verifyClassic(options *cosign.CheckOpts, content []byte) error {
	var layer struct {
		Payload     []byte            `json:"payload"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(content, &layer); err != nil {
		return err
	}
	var with []static.Option
	if certificate := layer.Annotations["dev.sigstore.cosign/certificate"]; certificate != "" {
		with = append(with, static.WithCertChain([]byte(certificate), chainOf(options.TrustedMaterial)))
	}
	if text := layer.Annotations["dev.sigstore.cosign/bundle"]; text != "" {
		var entry rekor.RekorBundle
		if err := json.Unmarshal([]byte(text), &entry); err != nil {
			return err
		}
		with = append(with, static.WithBundle(&entry))
	}
	if text := layer.Annotations["dev.sigstore.cosign/rfc3161timestamp"]; text != "" {
		var stamp rekor.RFC3161Timestamp
		if err := json.Unmarshal([]byte(text), &stamp); err != nil {
			return err
		}
		with = append(with, static.WithRFC3161Timestamp(&stamp))
	}
	s, err := static.NewSignature(layer.Payload, layer.Annotations["dev.cosignproject.cosign/signature"], with...)
	if err != nil {
		return err
	}
	image, err := v1.NewHash(digest.FromBytes(c.Manifest).String())
	if err != nil {
		return err
	}
	_, err = cosign.VerifyImageSignature(context.Background(), s, image, options)
	return err
}

// chainOf returns the certificates of the trusted authority, as cosign attaches them.
func chainOf(trusted root.TrustedMaterial) []byte {
	var chain bytes.Buffer
	if trusted == nil {
		return nil
	}
	for _, authority := range trusted.FulcioCertificateAuthorities() {
		if fulcio, ok := authority.(*root.FulcioCertificateAuthority); ok {
			for _, certificate := range append(fulcio.Intermediates, fulcio.Root) {
				_ = pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}) // to memory
			}
		}
	}
	return chain.Bytes()
}
