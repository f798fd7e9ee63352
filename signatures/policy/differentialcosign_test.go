package policy_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/signatures/signtest"
)

// cosignCorpus has cases for cosign, each of one signature. Classic signatures name the repository
// of the image: cosign does not look at it, and we do.
type cosignCorpus struct {
	TrustedRoot, Key string
	Policies         []cosignPolicy
	Cases            []cosignCase
}

// cosignPolicy is a policy in the words of both: by the key, or by an identity.
type cosignPolicy struct {
	ByKey           bool
	Issuer, Subject string
	Log, Timestamp  bool
}

type cosignCase struct{ Policy, Signature int }

const cosignReference = host + "/cosign/app"

// addCosign adds signatures with a key and keyless ones, of each form and with each kind of evidence,
// and has each policy judge each of them.
func (p *pool) addCosign(t *testing.T) {
	c := &p.Cosign
	p.References = append(p.References, cosignReference+"@"+p.digest.String())
	trusted, stranger := signtest.NewSigstore(t), signtest.NewSigstore(t)
	key, strange := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	c.TrustedRoot, c.Key = trusted.TrustedRoot(), key.PEM()
	const dev, issuer = "dev@example.com", "https://issuer.example.com"
	first := len(p.Signatures)
	add := func(s signatures.Signature) { p.Signatures = append(p.Signatures, s) }
	for _, d := range []digest.Digest{p.digest, other} {
		payload, statement := signtest.CosignPayload(d, cosignReference, nil), signtest.Statement(d, signatures.PredicateCosignSign, nil)
		for _, k := range []*signtest.Key{key, strange} {
			add(k.Cosign(payload))
			add(k.Bundle(statement))
		}
		for _, s := range []*signtest.Sigstore{trusted, stranger} {
			for _, with := range []signtest.Evidence{{}, {Log: true}, {Timestamp: true}, signtest.Both} {
				for _, by := range [][2]string{{dev, issuer}, {"other@example.com", issuer}, {dev, "https://other.example.com"}} {
					add(s.Cosign(by[0], by[1], payload, with))
					add(s.Bundle(by[0], by[1], statement, time.Now(), with))
				}
			}
		}
	}
	for _, k := range []*signtest.Key{key, strange} {
		add(k.MessageBundle(p.Manifest))
	}
	last := len(p.Signatures)
	for n := first; n < last; n++ { // and with a byte that is another one
		s := p.Signatures[n]
		s.Content = slices.Clone(s.Content)
		at := strings.Index(string(s.Content), `ignature":"`) + len(`ignature":"`) + p.random.IntN(20)
		s.Content[at] = map[bool]byte{true: 'A', false: 'B'}[s.Content[at] != 'A']
		add(s)
	}
	c.Policies = []cosignPolicy{{ByKey: true}}
	for _, by := range [][2]string{{dev, issuer}, {"dev@example.co", issuer}, {dev, "https://other.example.com"}} {
		for _, with := range []signtest.Evidence{{Log: true}, {Timestamp: true}, signtest.Both} {
			c.Policies = append(c.Policies, cosignPolicy{Subject: by[0], Issuer: by[1], Log: with.Log, Timestamp: with.Timestamp})
		}
	}
	for i := range c.Policies {
		for n := first; n < len(p.Signatures); n++ {
			c.Cases = append(c.Cases, cosignCase{i, n})
		}
	}
}

// compareCosign judges the cases of cosign.
func (c *corpus) compareCosign(t *testing.T, want *verdicts) {
	if len(want.CosignCases) != len(c.Cosign.Cases) || len(c.Cosign.Cases) < 1000 {
		t.Fatalf("%d cases, %d verdicts", len(c.Cosign.Cases), len(want.CosignCases))
	}
	verifiers := make([]*policy.Verifier, len(c.Cosign.Policies))
	for i, p := range c.Cosign.Policies {
		r := signatures.RootOfTrust{PolicyType: "PublicKey", PublicKey: &signatures.PublicKey{KeyData: c.Cosign.Key}}
		if !p.ByKey {
			r = signatures.RootOfTrust{PolicyType: "Sigstore", Sigstore: &signatures.Sigstore{
				TrustedRootData: c.Cosign.TrustedRoot, Identities: []signatures.Identity{{Issuer: p.Issuer, Subject: p.Subject}}, RequireTlog: &p.Log, RequireTimestamp: p.Timestamp,
			}}
		}
		var err error
		if verifiers[i], err = policy.New(policy.Options{Hosts: []string{host}, Policies: []signatures.Policy{{Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{r}}}}); err != nil {
			t.Fatal(err)
		}
	}
	reference := slices.IndexFunc(c.References, func(r string) bool { return strings.HasPrefix(r, cosignReference+"@") })
	accepted, differences := 0, 0
	for i, k := range c.Cosign.Cases {
		image, ours := c.judge(verifiers[k.Policy], reference, k.Signature)
		if ours {
			accepted++
		}
		theirs := want.CosignCases[i] == '1'
		// A difference on purpose: cosign verifies a timestamp of a classic signature, and wants none.
		onPurpose := theirs && c.Cosign.Policies[k.Policy].Timestamp && image.Signatures[0].Type == signatures.TypeCosign &&
			image.Signatures[0].Conditions[0].Reason == signatures.ReasonTimestampMissing
		if ours != theirs && !onPurpose {
			if differences++; differences <= 10 {
				t.Errorf("cosign case %d: %v, cosign: %c\npolicy %+v\nsignature %d%s", i, ours, want.CosignCases[i], c.Cosign.Policies[k.Policy], k.Signature, describe(image))
			}
		}
	}
	if differences > 0 || accepted < 10 {
		t.Errorf("%d differences in %d cases, %d accepted", differences, len(c.Cosign.Cases), accepted)
	}
}
