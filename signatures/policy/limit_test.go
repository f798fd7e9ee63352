package policy_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/signatures/signtest"
)

// TestVerifyLimit: no signature is begun after the limit; one that is remembered costs nothing.
func TestVerifyLimit(t *testing.T) {
	key := signtest.NewKey(t, "ecdsa-p256")
	v, err := policy.New(policy.Options{Policies: []signatures.Policy{{Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{publicKey(key)}}}})
	if err != nil {
		t.Fatal(err)
	}
	image := &imagev1.Image{}
	image.Name = subject.String()
	for n := range 3 {
		s := key.Bundle(signtest.Statement(subject, signatures.PredicateCosignSign, map[string]any{"n": n}))
		image.Signatures = append(image.Signatures, imagev1.ImageSignature{Type: s.Type, Content: s.Content})
	}
	statuses := func() (all []string) {
		for _, s := range image.Signatures {
			all = append(all, string(s.Conditions[0].Status)+" "+s.Conditions[0].Reason)
		}
		return all
	}
	for n, want := range [][]string{
		{"True Verified", "Unknown Pending", "Unknown Pending"},
		{"True Verified", "True Verified", "Unknown Pending"},
		{"True Verified", "True Verified", "True Verified"},
	} {
		result := v.Verify(image, []string{"a"}, nil, time.Nanosecond)
		if got := statuses(); !slices.Equal(got, want) || result.Pending != (n < 2) || result.Spent == 0 || !slices.Equal(result.Trusted, []string{"a"}) {
			t.Errorf("%d: %v, %+v; want %v", n, got, result, want)
		}
	}
	v.ClearCache()
	if result := v.Verify(image, []string{"a"}, nil, 0); result.Pending || slices.Contains(statuses(), "Unknown Pending") {
		t.Errorf("without a limit: %v", statuses())
	}
}

// TestDigest: the digest of the policies that apply to an image changes with them and with the files
// that they name, and with nothing else.
func TestDigest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pub")
	file := filepath.Join(t.TempDir(), "policy.json")
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pem := signtest.NewKey(t, "ecdsa-p256").PEM()
	write(path, pem)
	write(file, `{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"`+host+`/file":[{"type":"sigstoreSigned","keyPath":"`+path+`"}],"`+host+`/free":[{"type":"insecureAcceptAnything"}]}}}`)
	options := func(change func(*policy.Options)) policy.Options {
		fromFile := signatures.RootOfTrust{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyPath: path}}
		fixed := signatures.RootOfTrust{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: pem}}
		o := policy.Options{Hosts: []string{host}, PolicyFile: file, Policies: []signatures.Policy{
			{Name: "a", Scopes: []string{"a", "both"}, RootsOfTrust: []signatures.RootOfTrust{fromFile}},
			{Name: "b", Scopes: []string{"b", "both"}, RootsOfTrust: []signatures.RootOfTrust{fixed}},
		}}
		if change != nil {
			change(&o)
		}
		return o
	}
	image := &imagev1.Image{}
	image.Name = subject.String()
	type digests struct{ a, b, both, file, free, set string }
	read := func(o policy.Options) (d digests) {
		t.Helper()
		v, err := policy.New(o)
		if err != nil {
			t.Fatal(err)
		}
		for repository, into := range map[string]*string{"a": &d.a, "b": &d.b, "both": &d.both, "file": &d.file, "free": &d.free} {
			prepared := v.Prepare(image, []string{repository}, nil)
			*into, d.set = prepared.Policies, prepared.Digest
		}
		if d.set != v.Digest() {
			t.Errorf("two digests of the whole: %s, %s", d.set, v.Digest())
		}
		return d
	}
	first := read(options(nil))
	if again := read(options(nil)); again != first {
		t.Errorf("read again: %+v, before %+v", again, first)
	}
	if first.a == first.b || first.both == first.a || first.both == first.b {
		t.Errorf("different policies have one digest: %+v", first)
	}
	renamed := read(options(func(o *policy.Options) { o.Policies[1].SignedIdentity.MatchPolicy = "MatchRepository" }))
	if renamed.a != first.a || renamed.file != first.file || renamed.b == first.b || renamed.both == first.both || renamed.set == first.set {
		t.Errorf("another policy: %+v, before %+v", renamed, first)
	}
	if other := read(options(func(o *policy.Options) { o.Context = "other" })); other.a != first.a || other.set == first.set {
		t.Errorf("another context: %+v, before %+v", other, first)
	}
	write(path, signtest.NewKey(t, "ecdsa-p256").PEM())
	if key := read(options(nil)); key.b != first.b || key.free != first.free || key.a == first.a || key.both == first.both || key.file == first.file || key.set == first.set {
		t.Errorf("another key: %+v, before %+v", key, first)
	}
}
