package policy

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"tallyman/signatures"
)

// newSigstore makes a root of a trusted_root.json and identities.
func newSigstore(name string, p *signatures.Sigstore, files *fileReader) ([]rootOfTrust, error) {
	content, err := files.either("trustedRoot", p.TrustedRootPath, p.TrustedRootData)
	if err != nil {
		return nil, err
	}
	material, err := root.NewTrustedRootFromJSON(content)
	if err != nil {
		return nil, fmt.Errorf("trustedRoot: %w", err)
	}
	identities, err := newIdentities(p.Identities)
	if err != nil {
		return nil, err
	}
	r := &certificates{
		named: named("identity of " + cmp.Or(name, baseOf(p.TrustedRootPath, "sigstore"))), material: material,
		tlog: p.RequireTlog == nil || *p.RequireTlog, timestamp: p.RequireTimestamp,
		allows: allowing(identities),
	}
	wanted := []verify.VerifierOption{verify.WithoutStatementPredicate()}
	if r.tlog {
		wanted = append(wanted, verify.WithTransparencyLog(1))
	}
	if r.timestamp {
		wanted = append(wanted, verify.WithSignedTimestamps(1))
	} else {
		wanted = append(wanted, verify.WithObserverTimestamps(1))
	}
	if p.RequireSCT {
		wanted = append(wanted, verify.WithSignedCertificateTimestamps(1))
	}
	if r.verifier, err = verify.NewVerifier(material, wanted...); err != nil {
		return nil, err
	}
	return []rootOfTrust{r}, nil
}

// newIdentities refuses an identity without a subject or an issuer, and makes regular
// expressions match as a whole.
func newIdentities(all []signatures.Identity) (verify.CertificateIdentities, error) {
	if len(all) == 0 {
		return nil, errors.New("identities is required: want at least one issuer with a subject")
	}
	var identities verify.CertificateIdentities
	for i, id := range all {
		at := fmt.Sprintf("identities[%d]", i)
		if (id.Issuer == "") == (id.IssuerRegExp == "") {
			return nil, fmt.Errorf("%s: want one of issuer and issuerRegExp", at)
		}
		if (id.Subject == "") == (id.SubjectRegExp == "") {
			return nil, fmt.Errorf("%s: want one of subject and subjectRegExp", at)
		}
		for key, expression := range map[string]string{"issuerRegExp": id.IssuerRegExp, "subjectRegExp": id.SubjectRegExp} {
			if _, err := regexp.Compile(expression); err != nil {
				return nil, fmt.Errorf("%s.%s: %w", at, key, err)
			}
		}
		identity, err := verify.NewShortCertificateIdentity(id.Issuer, anchored(id.IssuerRegExp), id.Subject, anchored(id.SubjectRegExp))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		identities = append(identities, identity)
	}
	return identities, nil
}

func anchored(expression string) string {
	if expression == "" {
		return ""
	}
	return `\A(?:` + expression + `)\z`
}

func allowing(identities verify.CertificateIdentities) func(*x509.Certificate) bool {
	return func(leaf *x509.Certificate) bool {
		summary, err := certificate.SummarizeCertificate(leaf)
		if err != nil {
			return false
		}
		_, err = identities.Verify(summary)
		return err == nil
	}
}

// newFulcio makes a root of an authority and a log that are given by themselves.
func newFulcio(name string, p *signatures.FulcioCAWithRekor, files *fileReader) ([]rootOfTrust, error) {
	content, err := files.either("fulcioCA", p.FulcioCAPath, p.FulcioCAData)
	if err != nil {
		return nil, err
	}
	authorities, err := newAuthorities(content, nil)
	if err != nil {
		return nil, fmt.Errorf("fulcioCA: %w", err)
	}
	key, err := files.either("rekorKey", p.RekorKeyPath, p.RekorKeyData)
	if err != nil {
		return nil, err
	}
	material, err := logMaterial(key, authorities)
	if err != nil {
		return nil, fmt.Errorf("rekorKey: %w", err)
	}
	identities, err := newIdentities([]signatures.Identity{{Issuer: p.FulcioSubject.OIDCIssuer, Subject: p.FulcioSubject.SignedEmail}})
	if err != nil {
		return nil, fmt.Errorf("fulcioSubject: oidcIssuer and signedEmail are required: %w", err)
	}
	verifier, err := verify.NewVerifier(material, verify.WithTransparencyLog(1), verify.WithIntegratedTimestamps(1), verify.WithoutStatementPredicate())
	if err != nil {
		return nil, err
	}
	return []rootOfTrust{&certificates{
		named: named("identity of " + cmp.Or(name, baseOf(p.FulcioCAPath, "fulcio"))), material: material, verifier: verifier,
		tlog: true, allows: allowing(identities),
	}}, nil
}

// newPKI makes a root of an authority whose certificates are not short-lived, and
// have to be valid now.
func newPKI(name string, p *signatures.PKI, files *fileReader) ([]rootOfTrust, error) {
	roots, err := files.either("caRoots", p.CARootsPath, p.CARootsData)
	if err != nil {
		return nil, err
	}
	var intermediates []byte
	if p.CAIntermediatesPath != "" || p.CAIntermediatesData != "" {
		if intermediates, err = files.either("caIntermediates", p.CAIntermediatesPath, p.CAIntermediatesData); err != nil {
			return nil, err
		}
	}
	authorities, err := newAuthorities(roots, intermediates)
	if err != nil {
		return nil, err
	}
	if p.Subject.Email == "" && p.Subject.Hostname == "" {
		return nil, errors.New("pkiCertificateSubject is required: want email, hostname or both")
	}
	material := &fixedMaterial{authorities: authorities}
	verifier, err := verify.NewVerifier(material, verify.WithCurrentTime(), verify.WithoutStatementPredicate())
	if err != nil {
		return nil, err
	}
	return []rootOfTrust{&certificates{
		named: named("certificate of " + cmp.Or(name, baseOf(p.CARootsPath, "pki"))), material: material, verifier: verifier,
		allows: func(leaf *x509.Certificate) bool {
			return (p.Subject.Email == "" || slices.Contains(leaf.EmailAddresses, p.Subject.Email)) &&
				(p.Subject.Hostname == "" || leaf.VerifyHostname(p.Subject.Hostname) == nil)
		},
	}}, nil
}

// newAuthorities makes an authority of each root certificate.
func newAuthorities(roots, intermediates []byte) ([]root.CertificateAuthority, error) {
	all, err := parseCertificates(roots)
	if err != nil {
		return nil, err
	}
	between := []*x509.Certificate{}
	if intermediates != nil {
		if between, err = parseCertificates(intermediates); err != nil {
			return nil, fmt.Errorf("caIntermediates: %w", err)
		}
	}
	// A file with a whole chain is as good as two.
	anchors := slices.DeleteFunc(slices.Clone(all), func(c *x509.Certificate) bool { return c.CheckSignatureFrom(c) != nil })
	if len(anchors) == 0 {
		anchors = all
	}
	var authorities []root.CertificateAuthority
	for _, anchor := range anchors {
		authorities = append(authorities, &root.FulcioCertificateAuthority{Root: anchor, Intermediates: slices.Concat(all, between)})
	}
	return authorities, nil
}

func parseCertificates(content []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, block := range pemBlocks(content) {
		decoded, _ := pem.Decode(block)
		c, err := x509.ParseCertificate(decoded.Bytes)
		if err != nil {
			return nil, fmt.Errorf("not a certificate: %w", err)
		}
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate: want PEM")
	}
	return all, nil
}

// pemBlocks returns each PEM block of content by itself.
func pemBlocks(content []byte) [][]byte {
	var blocks [][]byte
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			return blocks
		}
		blocks, content = append(blocks, pem.EncodeToMemory(block)), rest
	}
}
