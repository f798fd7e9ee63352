package policy_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/signatures/signtest"
)

const (
	host       = "registry.example.com"
	repository = "prod/app"
	reference  = host + "/" + repository
	issuer     = "https://issuer.example.test"
	developer  = "dev@example.test"
)

var (
	manifest = []byte(`{"schemaVersion":2}`)
	subject  = digest.FromBytes(manifest)
	other    = digest.FromString("another image")
)

// newVerifier makes a verifier with one policy for prod.
func newVerifier(t *testing.T, identity signatures.SignedIdentity, roots ...signatures.RootOfTrust) *policy.Verifier {
	t.Helper()
	v, err := policy.New(policy.Options{Hosts: []string{host}, Policies: []signatures.Policy{{
		Name: "prod", Scopes: []string{host + "/prod"}, RootsOfTrust: roots, SignedIdentity: identity,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// assess returns the signature as it is on an Image of the repository.
func assess(t *testing.T, v *policy.Verifier, s signatures.Signature) (got imagev1.ImageSignature, trusted []string) {
	t.Helper()
	image := &imagev1.Image{DockerImageReference: reference + "@" + subject.String()}
	image.Name = subject.String()
	image.Signatures = []imagev1.ImageSignature{{Type: s.Type, Content: s.Content}}
	trusted = v.Verify(image, []string{repository}, []string{repository + ":v1"}, 0).Trusted
	got = image.Signatures[0]
	if len(got.Conditions) != 2 || got.Conditions[0].Type != "Trusted" || got.Conditions[1].Type != "ForImage" {
		t.Fatalf("conditions are %+v", got.Conditions)
	}
	if got.Conditions[0].Status != "True" && (got.IssuedBy != nil || got.IssuedTo != nil || got.ImageIdentity != "" || got.SignedClaims != nil || got.Created != nil) {
		t.Fatalf("a signature that is not trusted says who made it: %+v", got)
	}
	return got, trusted
}

func wantVerdict(t *testing.T, got imagev1.ImageSignature, trusted, reason, forImage string) {
	t.Helper()
	if c := got.Conditions[0]; string(c.Status) != trusted || c.Reason != reason {
		t.Errorf("Trusted is %s %s (%s), want %s %s", c.Status, c.Reason, c.Message, trusted, reason)
	}
	if c := got.Conditions[1]; string(c.Status) != forImage {
		t.Errorf("ForImage is %s %s (%s), want %s", c.Status, c.Reason, c.Message, forImage)
	}
}

func publicKey(k *signtest.Key) signatures.RootOfTrust {
	return signatures.RootOfTrust{Name: "release", PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: k.PEM()}}
}

func keyless(s *signtest.Sigstore, change func(*signatures.Sigstore)) signatures.RootOfTrust {
	p := &signatures.Sigstore{TrustedRootData: s.TrustedRoot(), Identities: []signatures.Identity{{Issuer: issuer, Subject: developer}}}
	if change != nil {
		change(p)
	}
	return signatures.RootOfTrust{Name: "ci", PolicyType: "Sigstore", Sigstore: p}
}

// TestKeys: a signature of each form by each usual kind of key is trusted.
func TestKeys(t *testing.T) {
	for _, algorithm := range signtest.Algorithms {
		t.Run(algorithm, func(t *testing.T) {
			k := signtest.NewKey(t, algorithm)
			v := newVerifier(t, signatures.SignedIdentity{}, publicKey(signtest.NewKey(t, "ecdsa-p256")), publicKey(k))
			forms := map[string]signatures.Signature{
				"classic": k.Cosign(signtest.CosignPayload(subject, reference, nil)),
				"bundle":  k.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, nil)),
			}
			if algorithm != "ed25519" && !strings.HasPrefix(algorithm, "ecdsa-p384") && algorithm != "ecdsa-p521" {
				// The others sign more than the SHA-256 that names an image.
				if algorithm != "ed25519ph" {
					forms["message"] = k.MessageBundle(manifest)
				}
			}
			for form, s := range forms {
				got, trusted := assess(t, v, s)
				wantVerdict(t, got, "True", "Verified", "True")
				if !slices.Equal(trusted, []string{repository}) {
					t.Errorf("%s: trusted in %v", form, trusted)
				}
				if got.IssuedTo.PublicKeyID == "" || got.IssuedTo.CommonName != "key release" || !strings.HasPrefix(got.Conditions[0].Message, "policy prod, key release (policies ") {
					t.Errorf("%s: by %+v, %s", form, got.IssuedTo, got.Conditions[0].Message)
				}
			}
		})
	}
}

// TestHostile: every fault of a signature ends in the right reason.
func TestHostile(t *testing.T) {
	key, stranger := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	fulcio, impostor := signtest.NewSigstore(t), signtest.NewSigstore(t)
	now := time.Now()
	gpg := signtest.NewGPG(t, now.Add(-2*time.Hour))
	expired := signtest.NewGPG(t, now.Add(-2*time.Hour))
	revoked := signtest.NewGPG(t, now.Add(-2*time.Hour))
	beforeExpiry := expired.Sign(signtest.GPGPayload(subject, reference), now.Add(-90*time.Minute), 0)
	afterExpiry := expired.Sign(signtest.GPGPayload(subject, reference), now.Add(-30*time.Minute), 0)
	expired.Expire(time.Hour)
	beforeRevocation := revoked.Sign(signtest.GPGPayload(subject, reference), now.Add(-90*time.Minute), 0)
	revoked.Revoke(now.Add(-time.Hour))
	notation, unknown := signtest.NewNotation(t, "team"), signtest.NewNotation(t, "unknown")
	pki := signtest.NewPKI(t)

	v := newVerifier(t, signatures.SignedIdentity{},
		publicKey(key),
		keyless(fulcio, func(p *signatures.Sigstore) { p.RequireTimestamp = true }),
		signatures.RootOfTrust{Name: "gpg", PolicyType: "GPG", GPG: &signatures.GPG{KeyData: gpg.Armored() + expired.Armored() + revoked.Armored()}},
		signatures.RootOfTrust{Name: "team", PolicyType: "Notary", Notary: &signatures.Notary{TrustStorePath: notation.TrustStore()}},
		signatures.RootOfTrust{Name: "pki", PolicyType: "PKI", PKI: &signatures.PKI{CARootsData: pki.PEM(), Subject: signatures.PKISubject{Email: developer}}},
	)
	statement := signtest.Statement(subject, signatures.PredicateCosignSign, nil)
	payload := signtest.CosignPayload(subject, reference, nil)
	atomic := signtest.GPGPayload(subject, reference)
	at := now.Add(5 * time.Minute) // when the test authority's certificates are valid
	cases := map[string]struct {
		s                         signatures.Signature
		trusted, reason, forImage string
	}{
		"classic":                           {key.Cosign(payload), "True", "Verified", "True"},
		"classic, wrong key":                {stranger.Cosign(payload), "False", "KeyNotTrusted", "True"},
		"classic, for another image":        {key.Cosign(signtest.CosignPayload(other, reference, nil)), "False", "DigestMismatch", "False"},
		"classic, for another repository":   {key.Cosign(signtest.CosignPayload(subject, host+"/dev/app", nil)), "False", "IdentityMismatch", "True"},
		"classic, no reference":             {key.Cosign(signtest.CosignPayload(subject, "", nil)), "False", "IdentityMismatch", "True"},
		"classic, swapped payload":          {withPayload(t, key.Cosign(signtest.CosignPayload(other, reference, nil)), payload), "False", "KeyNotTrusted", "True"},
		"classic, truncated payload":        {withPayload(t, key.Cosign(payload), payload[:len(payload)-9]), "Unknown", "Unparsable", "Unknown"},
		"classic, digest given twice":       {key.Cosign(twice(payload)), "Unknown", "Unparsable", "Unknown"},
		"classic, other type of payload":    {key.Cosign(atomic), "Unknown", "Unparsable", "Unknown"},
		"classic, no signature":             {signtest.Cosign(t, payload, nil), "Unknown", "Unparsable", "Unknown"},
		"classic, not base64":               {signtest.Cosign(t, payload, map[string]string{signatures.AnnotationCosignSignature: "§"}), "Unknown", "Unparsable", "Unknown"},
		"classic, certificate is none":      {withAnnotation(t, key.Cosign(payload), signatures.AnnotationCosignCertificate, "x"), "Unknown", "Unparsable", "Unknown"},
		"classic, log entry is none":        {withAnnotation(t, key.Cosign(payload), signatures.AnnotationCosignBundle, "{"), "Unknown", "Unparsable", "Unknown"},
		"classic, not JSON":                 {signatures.Signature{Type: signatures.TypeCosign, Content: []byte("\x00\xff")}, "Unknown", "Unparsable", "Unknown"},
		"classic, keyless":                  {fulcio.Cosign(developer, issuer, payload, signtest.Both), "True", "Verified", "True"},
		"classic, keyless, by another":      {fulcio.Cosign("eve@example.test", issuer, payload, signtest.Both), "False", "IdentityMismatch", "True"},
		"classic, keyless, swapped payload": {withPayload(t, fulcio.Cosign(developer, issuer, signtest.CosignPayload(subject, "x", nil), signtest.Both), payload), "False", "SignatureInvalid", "True"},
		"classic, keyless, no log":          {fulcio.Cosign(developer, issuer, payload, signtest.Evidence{Timestamp: true}), "False", "LogEntryMissing", "True"},
		"classic, keyless, no timestamp":    {fulcio.Cosign(developer, issuer, payload, signtest.Evidence{Log: true}), "False", "TimestampMissing", "True"},
		"classic, keyless, other authority": {impostor.Cosign(developer, issuer, payload, signtest.Both), "False", "LogEntryMissing", "True"},

		"bundle":                          {key.Bundle(statement), "True", "Verified", "True"},
		"bundle, wrong key":               {stranger.Bundle(statement), "False", "KeyNotTrusted", "True"},
		"bundle, for another image":       {key.Bundle(signtest.Statement(other, signatures.PredicateCosignSign, nil)), "False", "DigestMismatch", "False"},
		"bundle, swapped payload":         {swapped(t, key.Bundle(signtest.Statement(other, signatures.PredicateCosignSign, nil)), statement), "False", "SignatureInvalid", "True"},
		"bundle, an attestation":          {key.Bundle(signtest.Statement(subject, "https://slsa.dev/provenance/v1", nil)), "Unknown", "Unparsable", "Unknown"},
		"bundle, predicate changed":       {swapped(t, key.Bundle(signtest.Statement(subject, "https://slsa.dev/provenance/v1", nil)), statement), "False", "SignatureInvalid", "True"},
		"bundle, predicate given twice":   {key.Bundle([]byte(`{"predicateType":"x",` + string(statement[1:]))), "Unknown", "Unparsable", "Unknown"},
		"bundle, not JSON":                {signatures.Signature{Type: signatures.TypeBundle, Content: []byte("hello")}, "Unknown", "Unparsable", "Unknown"},
		"bundle, empty":                   {signatures.Signature{Type: signatures.TypeBundle, Content: []byte("{}")}, "Unknown", "Unparsable", "Unknown"},
		"bundle, truncated":               {truncated(key.Bundle(statement)), "Unknown", "Unparsable", "Unknown"},
		"bundle, keyless":                 {fulcio.Bundle(developer, issuer, statement, at, signtest.Both), "True", "Verified", "True"},
		"bundle, keyless, by another":     {fulcio.Bundle(developer, "https://other.example", statement, at, signtest.Both), "False", "IdentityMismatch", "True"},
		"bundle, keyless, no log":         {fulcio.Bundle(developer, issuer, statement, at, signtest.Evidence{Timestamp: true}), "False", "LogEntryMissing", "True"},
		"bundle, keyless, no timestamp":   {fulcio.Bundle(developer, issuer, statement, at, signtest.Evidence{Log: true}), "False", "TimestampMissing", "True"},
		"bundle, keyless, swapped":        {swapped(t, fulcio.Bundle(developer, issuer, signtest.Statement(other, signatures.PredicateCosignSign, nil), at, signtest.Both), statement), "False", "SignatureInvalid", "True"},
		"bundle, keyless, impostor's log": {impostor.Bundle(developer, issuer, statement, at, signtest.Both), "False", "LogEntryMissing", "True"},

		"gpg":                             {gpg.Sign(atomic, now, 0), "True", "Verified", "True"},
		"gpg, unknown key":                {signtest.NewGPG(t, now).Sign(atomic, now, 0), "False", "KeyNotTrusted", "True"},
		"gpg, for another image":          {gpg.Sign(signtest.GPGPayload(other, reference), now, 0), "False", "DigestMismatch", "False"},
		"gpg, for another repository":     {gpg.Sign(signtest.GPGPayload(subject, host+"/dev/app:v1"), now, 0), "False", "IdentityMismatch", "True"},
		"gpg, tampered":                   {tampered(gpg.Sign(atomic, now, 0)), "False", "SignatureInvalid", "True"},
		"gpg, truncated":                  {truncated(gpg.Sign(atomic, now, 0)), "Unknown", "Unparsable", "Unknown"},
		"gpg, garbage":                    {signatures.Signature{Type: signatures.TypeAtomicV1, Content: []byte("hello")}, "Unknown", "Unparsable", "Unknown"},
		"gpg, not JSON":                   {gpg.Sign([]byte("hello"), now, 0), "Unknown", "Unparsable", "Unknown"},
		"gpg, huge":                       {gpg.Sign(append(slices.Clone(atomic), strings.Repeat(" ", 2<<20)...), now, 0), "Unknown", "Unparsable", "Unknown"},
		"gpg, digest given twice":         {gpg.Sign(twice(atomic), now, 0), "Unknown", "Unparsable", "Unknown"},
		"gpg, from the future":            {gpg.Sign(atomic, now.Add(24*time.Hour), 0), "False", "Expired", "True"},
		"gpg, expired signature":          {gpg.Sign(atomic, now.Add(-time.Hour), time.Minute), "False", "Expired", "True"},
		"gpg, key expired since":          {beforeExpiry, "True", "Verified", "True"},
		"gpg, key expired before":         {afterExpiry, "False", "Expired", "True"},
		"gpg, key revoked":                {beforeRevocation, "False", "KeyNotTrusted", "True"},
		"notation, JWS":                   {notation.Sign(signatures.TypeNotaryJWS, subject, 0, nil), "True", "Verified", "True"},
		"notation, COSE":                  {notation.Sign(signatures.TypeNotaryCOSE, subject, time.Hour, nil), "True", "Verified", "True"},
		"notation, unknown authority":     {unknown.Sign(signatures.TypeNotaryJWS, subject, 0, nil), "False", "CertificateUntrusted", "True"},
		"notation, for another image":     {notation.Sign(signatures.TypeNotaryJWS, other, 0, nil), "False", "DigestMismatch", "False"},
		"notation, tampered":              {jwsTampered(t, notation.Sign(signatures.TypeNotaryJWS, subject, 0, nil)), "False", "SignatureInvalid", "True"},
		"notation, truncated":             {truncated(notation.Sign(signatures.TypeNotaryCOSE, subject, 0, nil)), "Unknown", "Unparsable", "Unknown"},
		"notation, not JSON":              {signatures.Signature{Type: signatures.TypeNotaryJWS, Content: []byte("hello")}, "Unknown", "Unparsable", "Unknown"},
		"pki":                             {pki.Cosign(developer, now.Add(time.Hour), payload), "True", "Verified", "True"},
		"pki, for somebody else":          {pki.Cosign("eve@example.test", now.Add(time.Hour), payload), "False", "IdentityMismatch", "True"},
		"pki, expired":                    {pki.Cosign(developer, now.Add(-time.Hour), payload), "False", "Expired", "True"},
		"pki, other authority":            {signtest.NewPKI(t).Cosign(developer, now.Add(time.Hour), payload), "False", "LogEntryMissing", "True"},
		"kept elsewhere, as it is so big": {signatures.Signature{Type: signatures.TypeBundle, Content: []byte(`{"mediaType":"x/y","digest":"` + subject.String() + `","size":999999}`)}, "Unknown", "TooLarge", "Unknown"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, trusted := assess(t, v, c.s)
			wantVerdict(t, got, c.trusted, c.reason, c.forImage)
			if (c.trusted == "True") != (len(trusted) == 1) {
				t.Errorf("trusted in %v", trusted)
			}
		})
	}
	t.Run("notation, expired", func(t *testing.T) {
		s := notation.Sign(signatures.TypeNotaryJWS, subject, time.Second, nil)
		time.Sleep(2 * time.Second)
		got, _ := assess(t, v, s)
		wantVerdict(t, got, "False", "Expired", "True")
	})
}

// TestUnreadableBundle: the condition of a bundle that cannot be read repeats nothing of
// it, also not by way of a library's error.
func TestUnreadableBundle(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	got, _ := assess(t, newVerifier(t, signatures.SignedIdentity{}, publicKey(k)),
		signatures.Signature{Type: signatures.TypeBundle, Content: []byte(`{"mediaType":"evil"}`)})
	if want := "the bundle is not a sigstore bundle of a known version"; got.Conditions[0].Message != want {
		t.Errorf("the message is %q, want %q", got.Conditions[0].Message, want)
	}
}

// TestCertificateAlone: without the wish for a log or timestamp of its own, an
// authority that is not trusted is the reason, and so is a certificate's time.
func TestCertificateAlone(t *testing.T) {
	fulcio, impostor := signtest.NewSigstore(t), signtest.NewSigstore(t)
	no := false
	relaxed := func(p *signatures.Sigstore) { p.RequireTlog = &no }
	statement := signtest.Statement(subject, signatures.PredicateCosignSign, nil)
	v := newVerifier(t, signatures.SignedIdentity{}, keyless(fulcio, relaxed))
	at := time.Now().Add(5 * time.Minute)
	got, _ := assess(t, v, fulcio.Bundle(developer, issuer, statement, at, signtest.Evidence{Timestamp: true}))
	wantVerdict(t, got, "True", "Verified", "True")
	if got.Created == nil || got.IssuedBy.CommonName == "" || got.IssuedTo.CommonName != developer || got.SignedClaims["Issuer"] != issuer {
		t.Errorf("it says %+v", got)
	}
	got, _ = assess(t, v, impostor.Bundle(developer, issuer, statement, at, signtest.Evidence{Timestamp: true}))
	wantVerdict(t, got, "False", "TimestampMissing", "True")
	got, _ = assess(t, v, fulcio.Bundle(developer, issuer, statement, at, signtest.Evidence{}))
	wantVerdict(t, got, "False", "TimestampMissing", "True")

	strict := newVerifier(t, signatures.SignedIdentity{}, keyless(fulcio, nil))
	got, _ = assess(t, strict, fulcio.Bundle(developer, issuer, statement, time.Now().Add(50*time.Minute), signtest.Evidence{Log: true}))
	wantVerdict(t, got, "False", "Expired", "True")
	sct := newVerifier(t, signatures.SignedIdentity{}, keyless(fulcio, func(p *signatures.Sigstore) { p.RequireSCT = true }))
	got, _ = assess(t, sct, fulcio.Bundle(developer, issuer, statement, at, signtest.Both))
	wantVerdict(t, got, "False", "CertificateUntrusted", "True")
}

// TestAnchoredIdentities: a regular expression has to match as a whole.
func TestAnchoredIdentities(t *testing.T) {
	fulcio := signtest.NewSigstore(t)
	statement := signtest.Statement(subject, signatures.PredicateCosignSign, nil)
	v := newVerifier(t, signatures.SignedIdentity{}, keyless(fulcio, func(p *signatures.Sigstore) {
		p.Identities = []signatures.Identity{{IssuerRegExp: `https://issuer\.example\.test|x`, SubjectRegExp: `dev@example\.test|admin@example\.test`}}
	}))
	for signedBy, want := range map[string]string{
		developer: "True", "admin@example.test": "True", "notdev@example.test": "False", "dev@example.test.evil.example": "False",
	} {
		got, _ := assess(t, v, fulcio.Bundle(signedBy, issuer, statement, time.Now().Add(5*time.Minute), signtest.Both))
		if c := got.Conditions[0]; string(c.Status) != want {
			t.Errorf("%s: Trusted is %s %s, want %s", signedBy, c.Status, c.Reason, want)
		}
	}
	got, _ := assess(t, v, fulcio.Bundle(developer, issuer+".evil.example", statement, time.Now().Add(5*time.Minute), signtest.Both))
	wantVerdict(t, got, "False", "IdentityMismatch", "True")
}

// TestClaims: the claims of a trusted signature are on the entry, as texts, and no more than
// fits.
func TestClaims(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	v := newVerifier(t, signatures.SignedIdentity{}, publicKey(k))
	got, _ := assess(t, v, k.Cosign(signtest.CosignPayload(subject, reference, map[string]any{
		"build": "42", "numbers": []int{1, 2}, "huge": strings.Repeat("x", 1<<20),
	})))
	if got.SignedClaims["build"] != "42" || got.SignedClaims["numbers"] != "[1,2]" || got.SignedClaims["huge"] != "" || got.ImageIdentity != reference {
		t.Errorf("claims are %d, identity %q", len(got.SignedClaims), got.ImageIdentity)
	}
	got, _ = assess(t, v, k.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, map[string]any{"team": "blue"})))
	if got.SignedClaims["team"] != "blue" || got.SignedClaims["predicateType"] != signatures.PredicateCosignSign || got.ImageIdentity != "" {
		t.Errorf("claims are %v", got.SignedClaims)
	}
}

// TestVerifyAgain: verifying again changes no byte, and times change only with their
// conditions.
func TestVerifyAgain(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	path := filepath.Join(dir, "key.pub")
	write(t, path, k.PEM())
	v, err := policy.New(policy.Options{Hosts: []string{host}, Now: func() time.Time { return now }, Policies: []signatures.Policy{{
		Name: "prod", Scopes: []string{"prod"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyPath: path}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	image := &imagev1.Image{}
	image.Name = subject.String()
	s := k.Cosign(signtest.CosignPayload(subject, reference, nil))
	image.Signatures = []imagev1.ImageSignature{{Type: s.Type, Content: s.Content}}
	v.Verify(image, []string{repository}, nil, 0)
	before := signtest.JSON(t, image)
	now = now.Add(time.Hour)
	v.ClearCache()
	v.Verify(image, []string{repository}, nil, 0)
	if after := signtest.JSON(t, image); after != before {
		t.Errorf("assessed again it is\n%s\nand was\n%s", after, before)
	}
	v.Verify(image, []string{"dev/app"}, nil, 0)
	trusted, forImage := image.Signatures[0].Conditions[0], image.Signatures[0].Conditions[1]
	if trusted.Status != "Unknown" || trusted.Reason != "NoPolicy" || !trusted.LastTransitionTime.Time.Equal(now) || forImage.LastProbeTime.Time.Equal(now) {
		t.Errorf("without a policy it is %+v %+v", trusted, forImage)
	}
}

// TestPanic: a panic in the verification of one signature affects no other.
func TestPanic(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	calls := 0
	v, err := policy.New(policy.Options{
		Policies: []signatures.Policy{{Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(k)}}},
		Now: func() time.Time {
			if calls++; calls == 1 {
				panic("no time")
			}
			return time.Now()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := k.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, nil))
	got, _ := assess(t, v, s)
	wantVerdict(t, got, "Unknown", "Unparsable", "Unknown")
	got, _ = assess(t, v, s)
	wantVerdict(t, got, "True", "Verified", "True")
}

// TestWatch: trust follows the files, and a broken file changes nothing.
func TestWatch(t *testing.T) {
	k, next := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	path := filepath.Join(t.TempDir(), "key.pub")
	write(t, path, k.PEM())
	v := newVerifier(t, signatures.SignedIdentity{}, signatures.RootOfTrust{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyPath: path}})
	changed := make(chan struct{}, 8)
	go v.Watch(t.Context(), 10*time.Millisecond, func() { changed <- struct{}{} })
	signed := next.Cosign(signtest.CosignPayload(subject, reference, nil))
	got, _ := assess(t, v, signed)
	wantVerdict(t, got, "False", "KeyNotTrusted", "True")
	write(t, path, "no key at all")
	select {
	case <-changed:
		t.Error("a broken file counts as a change")
	case <-time.After(200 * time.Millisecond):
	}
	got, _ = assess(t, v, k.Cosign(signtest.CosignPayload(subject, reference, nil)))
	wantVerdict(t, got, "True", "Verified", "True")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(t, path, next.PEM())
	<-changed
	got, _ = assess(t, v, signed)
	wantVerdict(t, got, "True", "Verified", "True")
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func withPayload(t *testing.T, s signatures.Signature, payload []byte) signatures.Signature {
	t.Helper()
	c := cosignContent(t, s)
	return signtest.Cosign(t, payload, c.Annotations)
}

func withAnnotation(t *testing.T, s signatures.Signature, key, value string) signatures.Signature {
	t.Helper()
	c := cosignContent(t, s)
	c.Annotations[key] = value
	return signtest.Cosign(t, c.Payload, c.Annotations)
}

func cosignContent(t *testing.T, s signatures.Signature) signatures.CosignContent {
	t.Helper()
	var c signatures.CosignContent
	if err := json.Unmarshal(s.Content, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// twice gives the payload's digest a second time.
func twice(payload []byte) []byte {
	return []byte(strings.Replace(string(payload), `"critical":`, `"critical":{"image":{"docker-manifest-digest":"`+other.String()+`"}},"critical":`, 1))
}

// swapped puts another statement into a bundle.
func swapped(t *testing.T, s signatures.Signature, statement []byte) signatures.Signature {
	t.Helper()
	var b map[string]any
	if err := json.Unmarshal(s.Content, &b); err != nil {
		t.Fatal(err)
	}
	b["dsseEnvelope"].(map[string]any)["payload"] = base64.StdEncoding.EncodeToString(statement)
	return signatures.Signature{Type: s.Type, Content: []byte(signtest.JSON(t, b))}
}

func truncated(s signatures.Signature) signatures.Signature {
	return signatures.Signature{Type: s.Type, Content: s.Content[:len(s.Content)/2]}
}

func tampered(s signatures.Signature) signatures.Signature {
	content := slices.Clone(s.Content)
	content[len(content)-9] ^= 1
	return signatures.Signature{Type: s.Type, Content: content}
}

func jwsTampered(t *testing.T, s signatures.Signature) signatures.Signature {
	t.Helper()
	var envelope map[string]any
	if err := json.Unmarshal(s.Content, &envelope); err != nil {
		t.Fatal(err)
	}
	signed, err := base64.RawURLEncoding.DecodeString(envelope["signature"].(string))
	if err != nil {
		t.Fatal(err)
	}
	signed[7] ^= 1
	envelope["signature"] = base64.RawURLEncoding.EncodeToString(signed)
	return signatures.Signature{Type: s.Type, Content: []byte(signtest.JSON(t, envelope))}
}

// TestAmbiguousManifest: no signature of an image is trusted whose manifest clients may read
// differently. Other failures keep their reasons.
func TestAmbiguousManifest(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	v := newVerifier(t, signatures.SignedIdentity{}, publicKey(k))
	image := &imagev1.Image{}
	image.Name, image.Annotations = subject.String(), map[string]string{"tallyman.dev/ambiguous": "layers"}
	for _, digest := range []digest.Digest{subject, other} {
		s := k.Cosign(signtest.CosignPayload(digest, reference, nil))
		image.Signatures = append(image.Signatures, imagev1.ImageSignature{Type: s.Type, Content: s.Content})
	}
	trusted := v.Verify(image, []string{repository}, nil, 0).Trusted
	wantVerdict(t, image.Signatures[0], "False", "AmbiguousManifest", "True")
	wantVerdict(t, image.Signatures[1], "False", "DigestMismatch", "False")
	if image.Annotations = nil; len(trusted) != 0 || len(v.Verify(image, []string{repository}, nil, 0).Trusted) != 1 {
		t.Errorf("trusted in %v while it is ambiguous", trusted)
	}
}
