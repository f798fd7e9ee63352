package policy_test

import (
	"encoding/base64"
	"fmt"
	"os"
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
	trusted = v.Verify(image, []string{repository}, tags, 0).Trusted
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
		{[]string{"*.example.com"}, "a/b", nil, "0"},
		{[]string{"*", "*.example.com", host + ":5000"}, "a/b", nil, "2"},
		{[]string{host + ":5000/a", host + ":5000/a/b"}, "a/b", nil, "1"},
		{[]string{host + ":5000/a", host + ":5000/a/b"}, "a/c", nil, "0"},
		{[]string{host + ":5000/a"}, "ab/c", nil, ""},
		{[]string{"a"}, "a/b", nil, "0"},
		{[]string{"a/b"}, "a/b/c", nil, "0"},
		{[]string{"a/b/c"}, "a/b", nil, ""},
		{[]string{"a", host + ":5000/a/b"}, "a/b", nil, "1"},
		{[]string{"a/b:v1", "a/b"}, "a/b", []string{"a/b:v1"}, "1"}, // the first name, which is that without a tag
		{[]string{"a/b:v1"}, "a/b", []string{"a/b:v1"}, "0"},
		{[]string{"a/b:v1", "a/b"}, "a/b", []string{"a/b:v2", "other:v1"}, "1"},
		{[]string{host + ":5000/a/b:v1"}, "a/b", []string{"a/b:v1"}, "0"},
		{[]string{"a:v1"}, "a", []string{"a:v1"}, "0"},
		{[]string{"team:1"}, "team", []string{"team:1"}, "0"},
		{[]string{"a/b@" + string(subject)}, "a/b", nil, "0"},
		{[]string{"a/b@" + string(other), "a"}, "a/b", nil, "1"},
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
		{signatures.SignedIdentity{MatchPolicy: "MatchRepoDigestOrExact"}, reference, false},
		{signatures.SignedIdentity{MatchPolicy: "MatchRepoDigestOrExact"}, reference + ":any", true}, // for the digest
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
		{signatures.SignedIdentity{MatchPolicy: "RemapIdentity", RemapIdentity: &signatures.RemapIdentity{Prefix: host, SignedPrefix: "quay.io"}}, "quay.io/prod/app:v1", true},
		{signatures.SignedIdentity{MatchPolicy: "RemapIdentity", RemapIdentity: &signatures.RemapIdentity{Prefix: host, SignedPrefix: "quay.io"}}, reference, false},
		{signatures.SignedIdentity{MatchPolicy: "RemapIdentity", RemapIdentity: &signatures.RemapIdentity{Prefix: host + "/pro", SignedPrefix: "quay.io"}}, reference + ":v1", true},
	} {
		v := newVerifier(t, test.identity, publicKey(k))
		got, _ := assess(t, v, k.Cosign(signtest.CosignPayload(subject, test.signed, nil)))
		if trusted := got.Conditions[0].Status == "True"; trusted != test.want {
			t.Errorf("%+v, signed for %q: %s", test.identity, test.signed, got.Conditions[0].Message)
		}
	}
}

// TestHosts: the registry's name is the configured one, on the loopback interface several, and
// never one that a client has used.
func TestHosts(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	for _, test := range []struct {
		configured, pushed, signed, want string
	}{
		{"localhost:5000", "x.invalid", "localhost:5000/a", "Verified"},
		{"localhost:5000", "x.invalid", "127.0.0.1:5000/a", "Verified"},
		{"127.0.0.1:5000", "x.invalid", "localhost:5000/a", "Verified"},
		{"127.0.0.1:5000", "x.invalid", "localhost:5001/a", "IdentityMismatch"},
		{"registry.example.com", "staging.example.com", "staging.example.com/a", "IdentityMismatch"},
		{"registry.example.com", "staging.example.com", "registry.example.com/a", "Verified"},
		{"", "staging.example.com", "staging.example.com/a", "HostNotConfigured"},
		{"", "localhost:5000", "localhost:5000/a", "HostNotConfigured"},
	} {
		o := policy.Options{Policies: []signatures.Policy{{Name: "p", Scopes: []string{"a"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(k)}}}}
		if test.configured != "" {
			o.Hosts = []string{test.configured}
		}
		v, err := policy.New(o)
		if err != nil {
			t.Fatal(err)
		}
		s := k.Cosign(signtest.CosignPayload(subject, test.signed, nil))
		image := &imagev1.Image{DockerImageReference: test.pushed + "/a@" + subject.String(), Signatures: []imagev1.ImageSignature{{Type: s.Type, Content: s.Content}}}
		image.Name = subject.String()
		v.Verify(image, []string{"a"}, nil, 0)
		if got := image.Signatures[0].Conditions[0]; got.Reason != test.want {
			t.Errorf("%+v: %s %s", test, got.Reason, got.Message)
		}
	}
}

// TestTags: a policy for a tag judges that tag. A repository is trusted if all names of the image
// in it are.
func TestTags(t *testing.T) {
	release, dev := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	v, err := policy.New(policy.Options{Hosts: []string{host}, Policies: []signatures.Policy{
		{Name: "release", Scopes: []string{"prod"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(release)}},
		{Name: "dev", Scopes: []string{"prod/app:dev"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(dev)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	by := func(k *signtest.Key) signatures.Signature {
		return k.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, nil))
	}
	for name, test := range map[string]struct {
		tags    []string
		signed  []signatures.Signature
		entries []string // Trusted of each
		trusted bool
		byTag   map[string]bool
	}{
		"dev's signature, v1":        {[]string{"v1"}, []signatures.Signature{by(dev)}, []string{"KeyNotTrusted"}, false, map[string]bool{"v1": false, "dev": true}},
		"dev's signature, both tags": {[]string{"dev", "v1"}, []signatures.Signature{by(dev)}, []string{"Verified"}, false, map[string]bool{"v1": false, "dev": true}},
		"release's signature, v1":    {[]string{"v1"}, []signatures.Signature{by(release)}, []string{"Verified"}, true, map[string]bool{"v1": true, "dev": false}},
		"release's, both tags":       {[]string{"dev", "v1"}, []signatures.Signature{by(release)}, []string{"Verified"}, false, map[string]bool{"v1": true, "dev": false}},
		"both, both tags":            {[]string{"dev", "v1"}, []signatures.Signature{by(release), by(dev)}, []string{"Verified", "Verified"}, true, map[string]bool{"v1": true, "dev": true}},
	} {
		var tags []string
		for _, tag := range test.tags {
			tags = append(tags, "prod/app:"+tag)
		}
		reasons, trusted := trustedBy(v, "prod/app", tags, test.signed...)
		for i, want := range test.entries {
			if !strings.HasPrefix(reasons[i], want) {
				t.Errorf("%s: %s, want %s", name, reasons[i], want)
			}
		}
		if (len(trusted) == 1) != test.trusted {
			t.Errorf("%s: trusted in %v", name, trusted)
		}
		for tag, want := range test.byTag {
			image := &imagev1.Image{}
			image.Name = subject.String()
			for _, s := range test.signed {
				image.Signatures = append(image.Signatures, imagev1.ImageSignature{Type: s.Type, Content: s.Content})
			}
			if got := v.VerifyTag(image, "prod/app", tag); got != want {
				t.Errorf("%s: tag %s: %v", name, tag, got)
			}
		}
	}
}

// TestEachRepositoryForItself: a signature for one repository satisfies the policy of no other.
func TestEachRepositoryForItself(t *testing.T) {
	k := signtest.NewKey(t, "ecdsa-p256")
	v, err := policy.New(policy.Options{Hosts: []string{host}, Policies: []signatures.Policy{{Name: "all", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(k)}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := k.Cosign(signtest.CosignPayload(subject, host+"/a", nil))
	image := &imagev1.Image{Signatures: []imagev1.ImageSignature{{Type: s.Type, Content: s.Content}}}
	image.Name = subject.String()
	if trusted := v.Verify(image, []string{"a", "b"}, nil, 0).Trusted; !slices.Equal(trusted, []string{"a"}) {
		t.Errorf("trusted in %v", trusted)
	}
}

// TestRegistryScopes: of notation's statements the one for the repository decides.
func TestRegistryScopes(t *testing.T) {
	prod, dev := signtest.NewNotation(t, "prod"), signtest.NewNotation(t, "dev")
	store := t.TempDir()
	for name, n := range map[string]*signtest.Notation{"prod": prod, "dev": dev} {
		from := filepath.Join(n.TrustStore(), "x509", "ca", "test")
		if err := os.CopyFS(filepath.Join(store, "x509", "ca", name), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "trustpolicy.json")
	statement := func(name, scope string) string {
		return `{"name":"` + name + `","registryScopes":["` + scope + `"],"trustStores":["ca:` + name + `"],"trustedIdentities":["*"],"signatureVerification":{"level":"strict"}}`
	}
	options := func(hosts ...string) policy.Options {
		return policy.Options{Hosts: hosts, Policies: []signatures.Policy{{Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{
			{PolicyType: "Notary", Notary: &signatures.Notary{TrustStorePath: store, TrustPolicyPath: path}},
		}}}}
	}
	for _, test := range []struct {
		statements, repository string
		signer                 *signtest.Notation
		want                   bool
	}{
		{statement("prod", host+"/prod/app") + "," + statement("dev", host+"/dev/app"), "prod/app", prod, true},
		{statement("prod", host+"/prod/app") + "," + statement("dev", host+"/dev/app"), "prod/app", dev, false},
		{statement("prod", host+"/prod/app") + "," + statement("dev", host+"/dev/app"), "other", prod, false},
		{statement("prod", host+"/prod/app") + "," + statement("dev", "*"), "prod/app", dev, false},
		{statement("prod", host+"/prod/app") + "," + statement("dev", "*"), "other", dev, true},
		{statement("prod", "other.example.com/prod/app"), "prod/app", prod, false},
	} {
		write(t, path, `{"version":"1.0","trustPolicies":[`+test.statements+`]}`)
		v, err := policy.New(options(host))
		if err != nil {
			t.Fatal(err)
		}
		if reasons, trusted := trustedBy(v, test.repository, nil, test.signer.Sign(signatures.TypeNotaryJWS, subject, 0, nil)); (len(trusted) == 1) != test.want {
			t.Errorf("%s in %s: %v", test.statements, test.repository, reasons)
		}
	}
	if _, err := policy.New(options()); err == nil || !strings.Contains(err.Error(), "registryhost: other.example.com") {
		t.Errorf("a scope with a host, and none configured: %v", err)
	}
	write(t, path, `{"version":"1.0","trustPolicies":[{"nam":"p"}]}`)
	if _, err := policy.New(options(host)); err == nil || !strings.Contains(err.Error(), `unknown field "trustPolicies[0].nam"`) {
		t.Errorf("a field that is not known: %v", err)
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
	write(t, path, strings.NewReplacer("DIR", dir, "HOST", host, "SUBJECT", subject.String(), "ANYTAG", `"signedIdentity": {"type": "matchRepository"}`, "KEYDATA", encoded(k.PEM()), "GPGDATA", encoded(gpg.Armored())).Replace(`{
 "default": [{"type": "reject"}],
 "transports": {"docker": {
  "HOST/any": [{"type": "insecureAcceptAnything"}],
  "HOST/gpg": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "DIR/gpg.asc"}],
  "HOST/gpgdata": [{"type": "signedBy", "keyType": "GPGKeys", "keyData": "GPGDATA"}],
  "HOST/key": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub", "signedIdentity": {"type": "matchRepository"}}],
  "HOST/keydata": [{"type": "sigstoreSigned", "keyData": "KEYDATA", ANYTAG}],
  "HOST/log": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub", "rekorPublicKeyPath": "DIR/log.pub"}],
  "HOST/both": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub", ANYTAG}, {"type": "sigstoreSigned", "keyPath": "DIR/second.pub", ANYTAG}],
  "HOST/default": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub"}],
  "HOST/any/banned@SUBJECT": [{"type": "reject"}],
  "HOST/key/banned@SUBJECT": [{"type": "reject"}],
  "HOST/remapped": [{"type": "sigstoreSigned", "keyPath": "DIR/key.pub", "signedIdentity": {"type": "remapIdentity", "prefix": "HOST", "signedPrefix": "quay.io"}}],
  "HOST/pki": [{"type": "sigstoreSigned", "pki": {"caRootsPath": "DIR/ca.pem", "subjectEmail": "dev@example.test"}, ANYTAG}]
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
		"remapped/app": {[]signatures.Signature{by(k, "quay.io/remapped/app:v1")}, []string{"Verified"}, true},
		"remapped/old": {[]signatures.Signature{by(k, "quay.io/remapped/old:v0")}, []string{"Verified"}, false}, // for its digest, but not for v1
		"default/app":  {[]signatures.Signature{by(k, host+"/default/app:v1")}, []string{"Verified"}, true},
		"default/bare": {[]signatures.Signature{by(k, host+"/default/bare")}, []string{"IdentityMismatch"}, false},
		"any/banned":   {[]signatures.Signature{by(k, host+"/any/banned")}, []string{"KeyNotTrusted"}, false},
		"key/banned":   {[]signatures.Signature{by(k, host+"/key/banned")}, []string{"Verified"}, false}, // by the tag's policy
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
	nothing.Verify(image, []string{repository}, nil, 0)
	if got := image.Signatures[0]; got.ImageIdentity != "by hand" || got.Conditions[0].Reason != "manually verified" {
		t.Errorf("without a policy it is %+v", got)
	}
	strict := newVerifier(t, signatures.SignedIdentity{}, signatures.RootOfTrust{PolicyType: "GPG", GPG: &signatures.GPG{KeyData: signtest.NewGPG(t, time.Now()).Armored()}})
	strict.Verify(image, []string{repository}, nil, 0)
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
		"name is required":                        {Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		"scopes is required":                      {Name: "p", RootsOfTrust: []signatures.RootOfTrust{good}},
		`scope "a//b" is not valid`:               {Name: "p", Scopes: []string{"a//b"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		`scope "a@sha256:x" is not valid`:         {Name: "p", Scopes: []string{"a@sha256:x"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		"rootsOfTrust is required":                {Name: "p", Scopes: []string{"*"}},
		`policyType "Key" is not valid`:           {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "Key"}}},
		`publicKey is set, but policyType is`:     {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "GPG", PublicKey: good.PublicKey}}},
		"keyPath or keyData is required":          {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{}}}},
		"keyPath and keyData are both set":        {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyPath: "x", KeyData: "y"}}}},
		"no public key: want PEM":                 {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: "y"}}}},
		"/no/such/key":                            {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyPath: "/no/such/key"}}}},
		"want one of subject and subjectRegExp":   {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{keylessWith(signatures.Identity{Issuer: "x"})}},
		"want one of issuer and issuerRegExp":     {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{keylessWith(signatures.Identity{Subject: "x"})}},
		"subjectRegExp: error parsing regexp":     {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{keylessWith(signatures.Identity{Issuer: "x", SubjectRegExp: "("})}},
		"pkiCertificateSubject is required":       {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "PKI", PKI: &signatures.PKI{CARootsData: signtest.NewPKI(t).PEM()}}}},
		"want one of keyPath, keyPaths and":       {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "GPG", GPG: &signatures.GPG{}}}},
		"trustStorePath is required":              {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "Notary", Notary: &signatures.Notary{}}}},
		"holds no certificate":                    {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{{PolicyType: "Notary", Notary: &signatures.Notary{TrustStorePath: t.TempDir()}}}},
		`matchPolicy "Any" is not valid`:          {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{good}, SignedIdentity: signatures.SignedIdentity{MatchPolicy: "Any"}},
		"ExactRepository needs exactRepository.":  {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{good}, SignedIdentity: signatures.SignedIdentity{MatchPolicy: "ExactRepository"}},
		`scope "h.example.com/a" names a host`:    {Name: "p", Scopes: []string{"h.example.com/a"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		"  registryhost: h.example.com:5000":      {Name: "p", Scopes: []string{"h.example.com:5000"}, RootsOfTrust: []signatures.RootOfTrust{good}},
		"exactRepository.repository names a host": {Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{good}, SignedIdentity: signatures.SignedIdentity{MatchPolicy: "ExactRepository", ExactRepository: &signatures.ExactRepository{Repository: "quay.io/a"}}},
	} {
		if _, err := policy.New(policy.Options{Policies: []signatures.Policy{p}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %s", err, want)
		}
	}
	for _, unreachable := range []string{"other.example.com", "*.other.com", host + ":5000/a", "localhost/a"} {
		p := signatures.Policy{Name: "p", Scopes: []string{unreachable}, RootsOfTrust: []signatures.RootOfTrust{good}}
		if _, err := policy.New(policy.Options{Hosts: []string{host}, Policies: []signatures.Policy{p}}); err == nil || !strings.Contains(err.Error(), "can never match: this registry is "+host) {
			t.Errorf("scope %s: %v", unreachable, err)
		}
	}
	path := filepath.Join(t.TempDir(), "policy.json")
	for want, content := range map[string]string{
		"default is required":                      `{}`,
		"invalid character 'h'":                    `hello`,
		"duplicate field":                          `{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}`,
		`type "signed" is not valid`:               `{"default":[{"type":"signed"}]}`,
		`keyType "X" is not supported`:             `{"default":[{"type":"signedBy","keyType":"X","keyPath":"x"}]}`,
		"want one of keyData, keyPath":             `{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}`,
		"keyType does not belong":                  `{"default":[{"type":"sigstoreSigned","keyType":"GPGKeys","keyPath":"x"}]}`,
		"keyPath does not belong":                  `{"default":[{"type":"reject","keyPath":"x"}]}`,
		`unknown field "default[0].signedIdentty"`: `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"x","signedIdentty":{}}]}`,
		`unknown field "transport"`:                `{"default":[{"type":"reject"}],"transport":{}}`,
		"fulcio needs a log":                       `{"default":[{"type":"sigstoreSigned","fulcio":{}}]}`,
		"dockerReference: matchExact wants":        `{"default":[{"type":"sigstoreSigned","keyPath":"x","signedIdentity":{"type":"matchExact","dockerReference":"a"}}]}`,
		`type "" is not valid`:                     `{"default":[{"type":"sigstoreSigned","keyPath":"x","signedIdentity":{}}]}`,
		"registryhost: r.example.com":              `{"default":[{"type":"reject"}],"transports":{"docker":{"r.example.com/a":[{"type":"reject"}]}}}`,
		"want at least one requirement":            `{"default":[{"type":"reject"}],"transports":{"docker":{"":[]}}}`,
		`scope "/a" is not valid`:                  `{"default":[{"type":"reject"}],"transports":{"docker":{"/a":[{"type":"reject"}]}}}`,
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
		if where := v.Verify(image, []string{repository}, nil, 0).Trusted; len(where) != 0 {
			t.Errorf("trusted in %v", where)
		}
		s := image.Signatures[0]
		if len(s.Conditions) != 2 || s.Conditions[0].Status == "True" || s.IssuedTo != nil || s.ImageIdentity != "" || s.SignedClaims != nil || s.Created != nil {
			t.Errorf("it ends as %+v", s)
		}
	})
}
