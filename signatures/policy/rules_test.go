package policy_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/signatures/signtest"
)

// trustedBy returns the policies that find a signature trusted on an Image of the
// repository, by the conditions' messages.
func trustedBy(v *policy.Verifier, repository string, tags []string, all ...signatures.Signature) (reasons []string, trusted []string) {
	image := &imagev1.Image{DockerImageReference: host + ":5000/" + repository + "@" + subject.String()}
	image.Name = subject.String()
	for _, s := range all {
		image.Signatures = append(image.Signatures, imagev1.ImageSignature{Type: s.Type, Content: s.Content})
	}
	trusted = v.Verify(image, []string{repository}, tags)
	for _, s := range image.Signatures {
		reasons = append(reasons, s.Conditions[0].Reason+" "+s.Conditions[0].Message)
	}
	return reasons, trusted
}

// TestScopes: which policy covers a repository, by the most specific scope.
func TestScopes(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	s := k.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, nil))
	for _, test := range []struct {
		scopes     []string // of policies 0, 1, …
		repository string
		tags       []string
		want       string // the policy, "" for none
	}{
		{[]string{"*"}, "a/b", nil, "0"},
		{[]string{host + ":5000"}, "a/b", nil, "0"},
		{[]string{"other.example.com"}, "a/b", nil, ""},
		{[]string{"*.example.com"}, "a/b", nil, "0"},
		{[]string{"*.other.com"}, "a/b", nil, ""},
		{[]string{"*", "*.example.com", host + ":5000"}, "a/b", nil, "2"},
		{[]string{host + ":5000/a", host + ":5000/a/b"}, "a/b", nil, "1"},
		{[]string{host + ":5000/a", host + ":5000/a/b"}, "a/c", nil, "0"},
		{[]string{host + ":5000/a"}, "ab/c", nil, ""},
		{[]string{"a"}, "a/b", nil, "0"},
		{[]string{"a/b"}, "a/b/c", nil, "0"},
		{[]string{"a/b/c"}, "a/b", nil, ""},
		{[]string{"a", host + ":5000/a/b"}, "a/b", nil, "1"},
		{[]string{"a/b:v1", "a/b"}, "a/b", []string{"a/b:v1"}, "0"},
		{[]string{"a/b:v1", "a/b"}, "a/b", []string{"a/b:v2", "other:v1"}, "1"},
		{[]string{host + ":5000/a/b:v1"}, "a/b", []string{"a/b:v1"}, "0"},
		{[]string{"a:v1"}, "a", []string{"a:v1"}, "0"},
		// A repository that is called like another registry is not that registry's.
		{[]string{"other.example.com/prod"}, "other.example.com/prod", nil, ""},
	} {
		o := policy.Options{Hosts: []string{host + ":5000"}}
		for i, scope := range test.scopes {
			o.Policies = append(o.Policies, signatures.Policy{Name: fmt.Sprint(i), Scopes: []string{scope}, RootsOfTrust: []signatures.RootOfTrust{publicKey(k)}})
		}
		v, err := policy.New(o)
		if err != nil {
			t.Fatal(err)
		}
		want := "NoPolicy"
		if test.want != "" {
			want = "Verified policy " + test.want + ","
		}
		if got, _ := trustedBy(v, test.repository, test.tags, s); !strings.HasPrefix(got[0], want) {
			t.Errorf("scopes %v, %s %v: %s, want %s", test.scopes, test.repository, test.tags, got[0], want)
		}
	}
}

// TestSignedIdentity: how the reference in a signature has to match.
func TestSignedIdentity(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	for _, test := range []struct {
		identity signatures.SignedIdentity
		signed   string
		want     bool
	}{
		{signatures.SignedIdentity{}, reference, true},
		{signatures.SignedIdentity{}, reference + ":any", true},
		{signatures.SignedIdentity{}, host + "/prod/other", false},
		{signatures.SignedIdentity{}, repository, false},
		{signatures.SignedIdentity{}, "Not A Reference", false},
		{signatures.SignedIdentity{MatchPolicy: "MatchRepository"}, reference + "@" + string(other), true},
		{signatures.SignedIdentity{MatchPolicy: "MatchExact"}, reference + ":v1", true},
		{signatures.SignedIdentity{MatchPolicy: "MatchExact"}, reference + ":v2", false},
		{signatures.SignedIdentity{MatchPolicy: "MatchExact"}, reference, false},
		{signatures.SignedIdentity{MatchPolicy: "ExactRepository", ExactRepository: &signatures.ExactRepository{Repository: "quay.io/upstream/app"}}, "quay.io/upstream/app:v9", true},
		{signatures.SignedIdentity{MatchPolicy: "ExactRepository", ExactRepository: &signatures.ExactRepository{Repository: "quay.io/upstream/app"}}, reference, false},
		{signatures.SignedIdentity{MatchPolicy: "ExactReference", ExactRepository: &signatures.ExactRepository{Repository: "quay.io/upstream/app:v9"}}, "quay.io/upstream/app:v9", true},
		{signatures.SignedIdentity{MatchPolicy: "ExactReference", ExactRepository: &signatures.ExactRepository{Repository: "quay.io/upstream/app:v9"}}, "quay.io/upstream/app:v8", false},
		{signatures.SignedIdentity{MatchPolicy: "RemapIdentity", RemapIdentity: &signatures.RemapIdentity{Prefix: host, SignedPrefix: "quay.io"}}, "quay.io/prod/app", true},
		{signatures.SignedIdentity{MatchPolicy: "RemapIdentity", RemapIdentity: &signatures.RemapIdentity{Prefix: host, SignedPrefix: "quay.io"}}, reference, false},
		{signatures.SignedIdentity{MatchPolicy: "RemapIdentity", RemapIdentity: &signatures.RemapIdentity{Prefix: host + "/pro", SignedPrefix: "quay.io"}}, reference, true},
	} {
		v := newVerifier(t, test.identity, publicKey(k))
		got, _ := assess(t, v, k.Cosign(signtest.CosignPayload(subject, test.signed, nil)))
		if trusted := got.Conditions[0].Status == "True"; trusted != test.want {
			t.Errorf("%+v, signed for %q: %s", test.identity, test.signed, got.Conditions[0].Message)
		}
	}
}

// TestHosts: the registry's default name is the one in the Image; on the loopback interface it
// has several names.
func TestHosts(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	v, err := policy.New(policy.Options{Policies: []signatures.Policy{{Name: "p", Scopes: []string{"a"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(k)}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		pull, signed string
		want         bool
	}{
		{"localhost:5000/a", "localhost:5000/a", true},
		{"localhost:5000/a", "127.0.0.1:5000/a", true},
		{"127.0.0.1:5000/a", "localhost:5000/a", true},
		{"127.0.0.1:5000/a", "localhost:5001/a", false},
		{"registry.example.com/a", "localhost/a", false},
		{"a", "registry.example.com/a", false},
	} {
		s := k.Cosign(signtest.CosignPayload(subject, test.signed, nil))
		image := &imagev1.Image{DockerImageReference: test.pull + "@" + subject.String(), Signatures: []imagev1.ImageSignature{{Type: s.Type, Content: s.Content}}}
		image.Name = subject.String()
		v.Verify(image, []string{"a"}, nil)
		if got := image.Signatures[0].Conditions[0]; (got.Status == "True") != test.want {
			t.Errorf("%+v: %s", test, got.Message)
		}
	}
}

// TestPolicyFile: a containers-policy.json as it is.
func TestPolicyFile(t *testing.T) {
	k, second, log := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ed25519ph"), signtest.NewKey(t, "ecdsa-p256")
	gpg, pki := signtest.NewGPG(t, time.Now().Add(-time.Hour)), signtest.NewPKI(t)
	dir := t.TempDir()
	for name, content := range map[string]string{"key.pub": k.PEM(), "second.pub": second.PEM(), "gpg.asc": gpg.Armored(), "ca.pem": pki.PEM(), "log.pub": log.PEM()} {
		write(t, filepath.Join(dir, name), content)
	}
	encoded := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	path := filepath.Join(dir, "policy.json")
	write(t, path, strings.NewReplacer("DIR", dir, "HOST", host, "KEYDATA", encoded(k.PEM()), "GPGDATA", encoded(gpg.Armored())).Replace(`{
 "default": [{"type": "reject"}],
 "transports": {"docker": {
  "HOST/any": [{"type": "insecureAcceptAnything"}],
  "HOST/gpg": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "DIR/gpg.asc"}],
  "HOST/gpgdata": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": "GPGDATA"}],
  "HOST/key": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub", "signedIdentity": {"type": "matchRepository"}}],
  "HOST/keydata": [{"type": "sigstoreSigned", "keyData": "KEYDATA"}],
  "HOST/log": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub", "rekorPublicKeyPath": "DIR/log.pub"}],
  "HOST/both": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub"}, {"type": "sigstoreSigned", "keyPath": "DIR/second.pub"}],
  "HOST/remapped": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub", "signedIdentity": {"type": "remapIdentity", "prefix": "HOST", "signedPrefix": "quay.io"}}],
  "HOST/pki": [{"type": "sigstoreSigned", "pki": {"caRootsPath": "DIR/ca.pem", "subjectEmail": "dev@example.test"}}]
 }, "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}}
}`))
	v, err := policy.New(policy.Options{Hosts: []string{host}, PolicyFile: path})
	if err != nil {
		t.Fatal(err)
	}
	by := func(k *signtest.Key, repository string) signatures.Signature {
		return k.Cosign(signtest.CosignPayload(subject, repository, nil))
	}
	for repository, test := range map[string]struct {
		signed  []signatures.Signature
		reasons []string
		trusted bool
	}{
		"any/app":      {[]signatures.Signature{by(k, host+"/any/app")}, []string{"NoPolicy"}, false},
		"none/app":     {[]signatures.Signature{by(k, host+"/none/app")}, []string{"KeyNotTrusted"}, false},
		"gpg/app":      {[]signatures.Signature{gpg.Sign(signtest.GPGPayload(subject, host+"/gpg/app:v1"), time.Now(), 0)}, []string{"Verified"}, true},
		"gpgdata/app":  {[]signatures.Signature{gpg.Sign(signtest.GPGPayload(subject, host+"/gpgdata/app:v1"), time.Now(), 0)}, []string{"Verified"}, true},
		"key/app":      {[]signatures.Signature{by(k, host+"/key/app")}, []string{"Verified"}, true},
		"key/other":    {[]signatures.Signature{by(k, host+"/key/app")}, []string{"IdentityMismatch"}, false},
		"keydata/app":  {[]signatures.Signature{by(k, host+"/keydata/app")}, []string{"Verified"}, true},
		"log/app":      {[]signatures.Signature{by(k, host+"/log/app")}, []string{"LogEntryMissing"}, false},
		"both/one":     {[]signatures.Signature{by(k, host+"/both/one")}, []string{"Verified"}, false},
		"both/both":    {[]signatures.Signature{by(k, host+"/both/both"), by(second, host+"/both/both")}, []string{"Verified", "Verified"}, true},
		"remapped/app": {[]signatures.Signature{by(k, "quay.io/remapped/app")}, []string{"Verified"}, true},
		"pki/app":      {[]signatures.Signature{pki.Cosign(developer, time.Now().Add(time.Hour), signtest.CosignPayload(subject, host+"/pki/app", nil))}, []string{"Verified"}, true},
	} {
		got, trusted := trustedBy(v, repository, []string{repository + ":v1"}, test.signed...)
		for i, want := range test.reasons {
			if !strings.HasPrefix(got[i], want) {
				t.Errorf("%s: %s, want %s", repository, got[i], want)
			}
		}
		if slices.Contains(trusted, repository) != test.trusted {
			t.Errorf("%s: trusted in %v", repository, trusted)
		}
	}
}

// TestFulcioCAWithRekor: OpenShift's form of the signer of a keyless signature.
func TestFulcioCAWithRekor(t *testing.T) {
	fulcio := signtest.NewSigstore(t)
	root := func(email string) signatures.RootOfTrust {
		return signatures.RootOfTrust{Name: "ci", PolicyType: "FulcioCAWithRekor", Fulcio: &signatures.FulcioCAWithRekor{
			FulcioCAData: fulcio.FulcioPEM(), RekorKeyData: fulcio.RekorPEM(),
			FulcioSubject: signatures.FulcioSubject{OIDCIssuer: issuer, SignedEmail: email},
		}}
	}
	s := fulcio.Cosign(developer, issuer, signtest.CosignPayload(subject, reference, nil), signtest.Both)
	got, _ := assess(t, newVerifier(t, signatures.SignedIdentity{}, root(developer)), s)
	wantVerdict(t, got, "True", "Verified", "True")
	got, _ = assess(t, newVerifier(t, signatures.SignedIdentity{}, root("other@example.test")), s)
	wantVerdict(t, got, "False", "IdentityMismatch", "True")
}

// TestTrustPolicy: notation's own trust policy, whose level does not make a check that
// has failed a success: "audit" only writes it down.
func TestTrustPolicy(t *testing.T) {
	team, unknown := signtest.NewNotation(t, "team"), signtest.NewNotation(t, "unknown")
	path := filepath.Join(t.TempDir(), "trustpolicy.json")
	for level, want := range map[string]string{"strict": "True", "permissive": "True", "audit": "True", "skip": "False"} {
		stores := `"trustStores":["ca:test"],"trustedIdentities":["*"],`
		if level == "skip" {
			stores = ""
		}
		write(t, path, `{"version":"1.0","trustPolicies":[{"name":"p","registryScopes":["*"],`+stores+`"signatureVerification":{"level":"`+level+`"}}]}`)
		v := newVerifier(t, signatures.SignedIdentity{}, signatures.RootOfTrust{PolicyType: "Notary", Notary: &signatures.Notary{
			TrustStorePath: team.TrustStore(), TrustPolicyPath: path,
		}})
		got, _ := assess(t, v, team.Sign(signatures.TypeNotaryJWS, subject, 0, nil))
		if string(got.Conditions[0].Status) != want {
			t.Errorf("%s: %s %s", level, got.Conditions[0].Status, got.Conditions[0].Message)
		}
		got, _ = assess(t, v, unknown.Sign(signatures.TypeNotaryJWS, subject, 0, nil))
		if got.Conditions[0].Status != "False" {
			t.Errorf("%s: an unknown signer is %s %s", level, got.Conditions[0].Status, got.Conditions[0].Reason)
		}
	}
}

// TestWritten: conditions that an administrator has written on a GPG signature stay
// as long as no policy knows better.
func TestWritten(t *testing.T) {
	gpg := signtest.NewGPG(t, time.Now().Add(-time.Hour))
	s := gpg.Sign(signtest.GPGPayload(subject, reference), time.Now(), 0)
	image := &imagev1.Image{Signatures: []imagev1.ImageSignature{{Type: s.Type, Content: s.Content, Conditions: []imagev1.SignatureCondition{
		{Type: "Trusted", Status: "True", Reason: "manually verified"}, {Type: "ForImage", Status: "True", Reason: "manually verified"},
	}, ImageIdentity: "by hand"}}}
	image.Name = subject.String()
	nothing, err := policy.New(policy.Options{Hosts: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	nothing.Verify(image, []string{repository}, nil)
	if got := image.Signatures[0]; got.ImageIdentity != "by hand" || got.Conditions[0].Reason != "manually verified" {
		t.Errorf("without a policy it is %+v", got)
	}
	strict := newVerifier(t, signatures.SignedIdentity{}, signatures.RootOfTrust{PolicyType: "GPG", GPG: &signatures.GPG{KeyData: signtest.NewGPG(t, time.Now()).Armored()}})
	strict.Verify(image, []string{repository}, nil)
	if got := image.Signatures[0]; got.ImageIdentity != "" || got.Conditions[0].Reason != "KeyNotTrusted" {
		t.Errorf("with a policy that knows better it is %+v", got)
	}
}

// TestBadPolicies: an error names the wrong key, and a valid value.
func TestBadPolicies(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256").PEM()
	good := signatures.RootOfTrust{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: key}}
	keylessWith := func(id signatures.Identity) signatures.RootOfTrust {
		return keyless(signtest.NewSigstore(t), func(p *signatures.Sigstore) { p.Identities = []signatures.Identity{id} })
	}
	for want, p := range map[string]signatures.Policy{
		"name is required":                       {Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		"scopes is required":                     {Name: "p", RootsOfTrust: []signatures.RootOfTrust{good}},
		`scope "a//b" is not valid`:              {Name: "p", Scopes: []string{"a//b"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		`scope "a@sha256:x" is not valid`:        {Name: "p", Scopes: []string{"a@sha256:x"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		"rootsOfTrust is required":               {Name: "p", Scopes: []string{"*"}},
		`policyType "Key" is not valid`:          {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "Key"}}},
		`publicKey is set, but policyType is`:    {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "GPG", PublicKey: good.PublicKey}}},
		"keyPath or keyData is required":         {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{}}}},
		"keyPath and keyData are both set":       {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyPath: "x", KeyData: "y"}}}},
		"no public key: want PEM":                {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: "y"}}}},
		"/no/such/key":                           {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyPath: "/no/such/key"}}}},
		"want one of subject and subjectRegExp":  {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{keylessWith(signatures.Identity{Issuer: "x"})}},
		"want one of issuer and issuerRegExp":    {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{keylessWith(signatures.Identity{Subject: "x"})}},
		"subjectRegExp: error parsing regexp":    {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{keylessWith(signatures.Identity{Issuer: "x", SubjectRegExp: "("})}},
		"pkiCertificateSubject is required":      {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PKI", PKI: &signatures.PKI{CARootsData: signtest.NewPKI(t).PEM()}}}},
		"want one of keyPath, keyPaths and":      {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "GPG", GPG: &signatures.GPG{}}}},
		"trustStorePath is required":             {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "Notary", Notary: &signatures.Notary{}}}},
		"holds no certificate":                   {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "Notary", Notary: &signatures.Notary{TrustStorePath: t.TempDir()}}}},
		`matchPolicy "Any" is not valid`:         {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{good}, SignedIdentity: signatures.SignedIdentity{MatchPolicy: "Any"}},
		"ExactRepository needs exactRepository.": {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{good}, SignedIdentity: signatures.SignedIdentity{MatchPolicy: "ExactRepository"}},
	} {
		if _, err := policy.New(policy.Options{Policies: []signatures.Policy{p}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
	path := filepath.Join(t.TempDir(), "policy.json")
	for want, content := range map[string]string{
		"default is required":           `{}`,
		"not JSON":                      `hello`,
		"given twice":                   `{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}`,
		`type "signed" is not valid`:    `{"default":[{"type":"signed"}]}`,
		`keyType "X" is not supported`:  `{"default":[{"type":"signedBy","keyType":"X"}]}`,
		"want at least one requirement": `{"default":[{"type":"reject"}],"transports":{"docker":{"a.example.com":[]}}}`,
		`scope "/a" is not valid`:       `{"default":[{"type":"reject"}],"transports":{"docker":{"/a":[{"type":"reject"}]}}}`,
	} {
		write(t, path, content)
		if _, err := policy.New(policy.Options{PolicyFile: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %s", content, err, want)
		}
	}
}

// FuzzVerify: for any bytes, a signature ends with two conditions, is not trusted, and its
// statements are not passed on.
func FuzzVerify(f *testing.F) {
	k, gpg := signtest.NewKey(f, "ecdsa-p256"), signtest.NewGPG(f, time.Now())
	notation := signtest.NewNotation(f, "team")
	types := []string{signatures.TypeAtomic, signatures.TypeCosign, signatures.TypeBundle, signatures.TypeNotaryJWS, signatures.TypeNotaryCOSE}
	for _, s := range []signatures.Signature{
		gpg.Sign(signtest.GPGPayload(subject, reference), time.Now(), 0),
		k.Cosign(signtest.CosignPayload(subject, reference, nil)),
		k.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, nil)),
		notation.Sign(signatures.TypeNotaryJWS, subject, 0, nil),
		notation.Sign(signatures.TypeNotaryCOSE, subject, 0, nil),
		signtest.NewSigstore(f).Cosign(developer, issuer, signtest.CosignPayload(subject, reference, nil), signtest.Both),
	} {
		f.Add(uint8(slices.Index(types, s.Type)), s.Content)
	}
	trusted := signtest.NewKey(f, "ecdsa-p256") // which has signed nothing
	v, err := policy.New(policy.Options{Hosts: []string{host}, Policies: []signatures.Policy{{
		Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(trusted), keyless(signtest.NewSigstore(f), nil)},
	}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, content []byte) {
		image := &imagev1.Image{Signatures: []imagev1.ImageSignature{{Type: types[int(kind)%len(types)], Content: content}}}
		image.Name = subject.String()
		if where := v.Verify(image, []string{repository}, nil); len(where) != 0 {
			t.Errorf("trusted in %v", where)
		}
		s := image.Signatures[0]
		if len(s.Conditions) != 2 || s.Conditions[0].Status == "True" || s.IssuedTo != nil || s.ImageIdentity != "" || s.SignedClaims != nil || s.Created != nil {
			t.Errorf("it ends as %+v", s)
		}
	})
}
