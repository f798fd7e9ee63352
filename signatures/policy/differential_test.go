package policy_test

import (
	"bytes"
	"compress/gzip"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/signatures/signtest"
)

// record makes the corpus anew and has .ci/verdicts judge it: `make verdicts`.
var record = flag.Bool("record", false, "make the corpus and its verdicts anew")

// corpus is a set of policies, images and signatures, which .ci/verdicts reads, too. Cases name
// the others by their places.
type corpus struct {
	Manifest   []byte
	Signatures []signatures.Signature
	References []string
	Policies   []string
	Hosts      []string // of each policy: the registry's name, as it is configured here
	Cases      []containersCase
	Notation   struct {
		TrustStore    map[string]string
		TrustPolicies []string
		Cases         []notationCase
	}
	Cosign cosignCorpus
}

type containersCase struct {
	Policy, Reference int
	Signatures        []int
}

type notationCase struct{ Policy, Reference, Signature int }

// verdicts are those of containers/image, notation-go and cosign: of each policy whether it is valid, and
// of each case whether the image is accepted.
type verdicts struct{ Policies, Cases, TrustPolicies, NotationCases, CosignCases string }

const corpusFile = "testdata/corpus.json.gz"

// TestDifferential: where containers/image, notation and cosign accept and refuse an image, so do we.
func TestDifferential(t *testing.T) {
	if *record {
		recordVerdicts(t)
	}
	var c corpus
	readGzip(t, corpusFile, &c)
	var want verdicts
	content, err := os.ReadFile("testdata/verdicts.json")
	if err == nil {
		err = json.Unmarshal(content, &want)
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Cases) < 2000 || len(want.Cases) != len(c.Cases) || len(want.Policies) != len(c.Policies) ||
		len(want.NotationCases) != len(c.Notation.Cases) || strings.Count(want.Cases, "1") < len(c.Cases)/3 {
		t.Fatalf("%d cases, %d verdicts, %d accepted", len(c.Cases), len(want.Cases), strings.Count(want.Cases, "1"))
	}
	c.compareContainers(t, &want)
	synctest.Test(t, func(t *testing.T) { // notation asks the system's clock
		time.Sleep(time.Until(c.notationTime(t)))
		c.compareNotation(t, &want)
	})
	c.compareCosign(t, &want)
}

// compareContainers judges the cases of policy files.
func (c *corpus) compareContainers(t *testing.T, want *verdicts) {
	path := filepath.Join(t.TempDir(), "policy.json")
	verifiers := make([]*policy.Verifier, len(c.Policies))
	for i, text := range c.Policies {
		write(t, path, text)
		v, err := policy.New(policy.Options{Hosts: []string{c.Hosts[i]}, PolicyFile: path})
		if (err == nil) != (want.Policies[i] == '1') {
			t.Errorf("policy %s: %v, containers/image: %c", text, err, want.Policies[i])
		}
		verifiers[i] = v
	}
	differences := 0
	for i, k := range c.Cases {
		if verifiers[k.Policy] == nil || testing.Short() && i%5 > 0 {
			continue
		}
		image, accepted := c.judge(verifiers[k.Policy], k.Reference, k.Signatures...)
		accepted = accepted || anythingAccepted(image) // a difference on purpose: without trust
		if accepted != (want.Cases[i] == '1') {
			if differences++; differences <= 10 {
				t.Errorf("case %d: %v, containers/image: %c\nreference %s\npolicy %s\nsignatures %s", i, accepted, want.Cases[i], c.References[k.Reference], keyData.ReplaceAllString(c.Policies[k.Policy], "…"), describe(image))
			}
		}
	}
	if differences > 0 {
		t.Errorf("%d differences in %d cases", differences, len(c.Cases))
	}
}

// keyData is a key in a policy, which is too long to read.
var keyData = regexp.MustCompile(`"keyData":"[^"]*"`)

// anythingAccepted reports whether the policy for the image asks for nothing.
func anythingAccepted(image *imagev1.Image) bool {
	return slices.ContainsFunc(image.Signatures, func(s imagev1.ImageSignature) bool { return s.Conditions[0].Reason == signatures.ReasonNoPolicy })
}

func describe(image *imagev1.Image) string {
	var b strings.Builder
	for _, s := range image.Signatures {
		fmt.Fprintf(&b, "\n  %s %s: %s", s.Type, s.Conditions[0].Reason, s.Conditions[0].Message)
	}
	return b.String()
}

// judge reports whether the image with these signatures is trusted under a reference.
func (c *corpus) judge(v *policy.Verifier, reference int, all ...int) (*imagev1.Image, bool) {
	_, name, _ := strings.Cut(c.References[reference], "/")
	image := &imagev1.Image{}
	image.Name = digest.FromBytes(c.Manifest).String()
	for _, i := range all {
		image.Signatures = append(image.Signatures, imagev1.ImageSignature{Type: c.Signatures[i].Type, Content: c.Signatures[i].Content})
	}
	if repository, _, ok := strings.Cut(name, "@"); ok {
		return image, len(v.Verify(image, []string{repository}, nil, 0).Trusted) == 1
	}
	repository, tag, _ := strings.Cut(name, ":")
	return image, v.VerifyTag(image, repository, tag)
}

// notationTime is a time at which the recorded certificates of notation were valid: that is one day.
func (c *corpus) notationTime(t *testing.T) (at time.Time) {
	for name, certificate := range c.Notation.TrustStore {
		block, _ := pem.Decode([]byte(certificate))
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if hour := parsed.NotBefore.Add(time.Hour); hour.After(at) {
			at = hour
		}
	}
	return at
}

// compareNotation judges the cases of trust policies.
func (c *corpus) compareNotation(t *testing.T, want *verdicts) {
	store, path := t.TempDir(), filepath.Join(t.TempDir(), "trustpolicy.json")
	for name, certificate := range c.Notation.TrustStore {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(store, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(store, name), certificate)
	}
	for i, k := range c.Notation.Cases {
		write(t, path, c.Notation.TrustPolicies[k.Policy])
		v, err := policy.New(policy.Options{Hosts: []string{host}, Policies: []signatures.Policy{{Name: "p", Scopes: []string{"*"}, RootsOfTrust: []signatures.RootOfTrust{
			{PolicyType: "Notary", Notary: &signatures.Notary{TrustStorePath: store, TrustPolicyPath: path}},
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		if image, accepted := c.judge(v, k.Reference, k.Signature); accepted != (want.NotationCases[i] == '1') {
			t.Errorf("notation case %d: %v, notation-go: %c\nreference %s\npolicy %s\nsignatures %s", i, accepted, want.NotationCases[i],
				c.References[k.Reference], c.Notation.TrustPolicies[k.Policy], describe(image))
		}
	}
}

// recordVerdicts makes a corpus, and has the other programs judge it.
func recordVerdicts(t *testing.T) {
	c := makeCorpus(t)
	content, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(content); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), "go", "run", "-tags", "containers_image_openpgp", ".")
	program.Dir, program.Stdin, program.Stderr = "../../.ci/verdicts", bytes.NewReader(content), os.Stderr
	judged, err := program.Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("testdata", 0o750); err != nil {
		t.Fatal(err)
	}
	write(t, corpusFile, packed.String())
	write(t, "testdata/verdicts.json", string(judged))
}

func readGzip(t *testing.T, path string, into any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := gzip.NewReader(f)
	if err == nil {
		err = json.NewDecoder(r).Decode(into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pool has what a corpus is made of.
type pool struct {
	corpus
	random *rand.Rand
	gpg    string // the trusted keys, in base64
	key    string
	// requirements are the beginnings of requirements, by their kinds.
	requirements map[string]string
	digest       digest.Digest
	byType       map[string][]int          // signatures of each kind of requirement
	good         map[string]map[string]int // those of the image by the trusted key, by what they name
}

// kinds are the kinds of requirements: the types, and of sigstoreSigned each form.
var kinds = []string{"signedBy", "sigstoreSigned", "fulcio", "pki"}

// makeCorpus combines kinds of requirements, kinds of scopes and identities, each with 105 cases.
func makeCorpus(t *testing.T) *corpus {
	p := &pool{random: rand.New(rand.NewPCG(15, 1)), byType: map[string][]int{}, good: map[string]map[string]int{}}
	p.Manifest = fmt.Appendf(nil, "%-123s", manifest) // as long as signtest's notation signers say
	p.digest = digest.FromBytes(p.Manifest)
	p.sign(t)
	for _, h := range []string{host, host + ":5000"} {
		for _, name := range []string{"prod/app:v1", "prod/app:v2", "prod/app@" + p.digest.String(), "prod/other:v1", "app:v1", "prod/app/deep:v1", "prod/appendix:v1", "team/app@" + p.digest.String()} {
			p.References = append(p.References, h+"/"+name)
		}
	}
	scopes := []string{"", "HOST", "HOST/prod", "HOST/prod/app", "HOST/prod/app:v1", "HOST/prod/app@" + p.digest.String(), "*.example.com"}
	identities := []string{
		``, `{"type":"matchExact"}`, `{"type":"matchRepoDigestOrExact"}`, `{"type":"matchRepository"}`,
		`{"type":"exactReference","dockerReference":"quay.io/prod/app:v1"}`, `{"type":"exactRepository","dockerRepository":"quay.io/prod/app"}`,
		`{"type":"remapIdentity","prefix":"HOST/prod","signedPrefix":"quay.io/prod"}`,
	}
	for _, kind := range kinds {
		for _, s := range scopes {
			for _, identity := range identities {
				for variant := range 3 {
					h := []string{host, host + ":5000"}[p.random.IntN(2)]
					p.addPolicy(strings.ReplaceAll(p.policy(kind, s, identity, variant), "HOST", h), h)
					for range 35 {
						p.addCase(kind, h, s, identity)
					}
				}
			}
		}
	}
	p.addInvalid()
	p.addNotation(t)
	p.addCosign(t)
	return &p.corpus
}

// sign makes the signatures.
func (p *pool) sign(t *testing.T) {
	made := time.Now().Add(-time.Hour)
	gpg, strangerGPG := signtest.NewRSAGPG(t, made), signtest.NewRSAGPG(t, made)
	key, stranger := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	p.gpg = base64.StdEncoding.EncodeToString([]byte(gpg.Armored()))
	p.key = base64.StdEncoding.EncodeToString([]byte(key.PEM()))
	fulcio, strangeFulcio, pki, strangePKI := signtest.NewSigstore(t), signtest.NewSigstore(t), signtest.NewPKI(t), signtest.NewPKI(t)
	const email, issuer = "dev@example.com", "https://issuer.example.com"
	encoded := func(pem string) string { return base64.StdEncoding.EncodeToString([]byte(pem)) }
	p.requirements = map[string]string{
		"signedBy":       `{"type":"signedBy","keyType":"GPGKeys","keyData":"` + p.gpg + `"`,
		"sigstoreSigned": `{"type":"sigstoreSigned","keyData":"` + p.key + `"`,
		"fulcio": `{"type":"sigstoreSigned","fulcio":{"caData":"` + encoded(fulcio.FulcioPEM()) + `","oidcIssuer":"` + issuer + `","subjectEmail":"` + email + `"},"rekorPublicKeyData":"` +
			encoded(fulcio.RekorPEM()) + `"`,
		"pki": `{"type":"sigstoreSigned","pki":{"caRootsData":"` + encoded(pki.PEM()) + `","subjectEmail":"` + email + `"}`,
	}
	logged, until := signtest.Evidence{Log: true}, time.Now().AddDate(50, 0, 0) // the corpus is judged for years
	for _, kind := range kinds {
		p.good[kind] = map[string]int{}
	}
	add := func(kind string, s signatures.Signature) int {
		p.byType[kind] = append(p.byType[kind], len(p.Signatures))
		p.Signatures = append(p.Signatures, s)
		return len(p.Signatures) - 1
	}
	for _, signed := range []string{
		host + "/prod/app:v1", host + ":5000/prod/app:v1", host + "/prod/app@" + p.digest.String(), host + ":5000/prod/app@" + p.digest.String(), "quay.io/prod/app:v1",
		host + "/prod/app", host + ":5000/prod/app", host + "/prod/app:v2", host + ":5000/prod/other:v1", "quay.io/prod/app", "quay.io/prod/app@" + p.digest.String(),
		"prod/app:v1", "quay.io/other:v1", "NOT A REFERENCE", "", host + "/app:v1", host + ":5000/prod/app/deep:v1", host + "/prod/appendix:v1", host + ":5000/prod/appendix:v1",
	} {
		for _, d := range []digest.Digest{other, p.digest} {
			p.good["signedBy"][signed] = add("signedBy", gpg.Sign(signtest.GPGPayload(d, signed), made, 0))
			payload := signtest.CosignPayload(d, signed, nil)
			p.good["sigstoreSigned"][signed] = add("sigstoreSigned", key.Cosign(payload))
			p.good["fulcio"][signed] = add("fulcio", fulcio.Cosign(email, issuer, payload, logged))
			p.good["pki"][signed] = add("pki", pki.Cosign(email, until, payload))
		}
		payload := signtest.CosignPayload(p.digest, signed, nil)
		for _, s := range []signatures.Signature{
			strangeFulcio.Cosign(email, issuer, payload, logged), fulcio.Cosign("eve@example.com", issuer, payload, logged),
			fulcio.Cosign(email, "https://other.example.com", payload, logged), fulcio.Cosign(email, issuer, payload, signtest.Evidence{}),
		} {
			add("fulcio", s)
		}
		for _, s := range []signatures.Signature{
			strangePKI.Cosign(email, until, payload), pki.Cosign("eve@example.com", until, payload), pki.Cosign(email, time.Now().Add(-time.Hour), payload),
		} {
			add("pki", s)
		}
		add("signedBy", strangerGPG.Sign(signtest.GPGPayload(p.digest, signed), made, 0))
		add("sigstoreSigned", stranger.Cosign(signtest.CosignPayload(p.digest, signed, nil)))
	}
}

// policy makes a policy with one scope of the kind under test, and sometimes others.
func (p *pool) policy(kind, s, identity string, variant int) string {
	requirement := func(kind, identity string) string {
		r := p.requirements[kind]
		if identity != "" {
			r += `,"signedIdentity":` + identity
		}
		return r + "}"
	}
	tested := requirement(kind, identity)
	if variant == 2 && p.random.IntN(3) == 0 {
		tested += "," + requirement("sigstoreSigned", `{"type":"matchRepository"}`)
	}
	all := map[string]string{s: tested}
	for _, more := range []string{"HOST/prod/other", "HOST/prod/app:v2", "HOST/team", "*.com", "HOST/app", "other.example.com", "library/app", "HOST/prod/app/deep:v1", "HOST/pro"} {
		if p.random.IntN(3) == 0 {
			all[more] = []string{`{"type":"reject"}`, `{"type":"insecureAcceptAnything"}`, requirement(kind, `{"type":"matchRepository"}`)}[p.random.IntN(3)]
		}
	}
	var docker []string
	for _, name := range []string{"", "HOST", "HOST/prod", "HOST/prod/app", "HOST/prod/app:v1", "HOST/prod/app@" + p.digest.String(), "*.example.com", "HOST/prod/other", "HOST/prod/app:v2", "HOST/team", "*.com", "HOST/app", "other.example.com", "library/app", "HOST/prod/app/deep:v1", "HOST/pro"} {
		if r, ok := all[name]; ok {
			docker = append(docker, fmt.Sprintf("%q:[%s]", name, r))
		}
	}
	return `{"default":[{"type":"reject"}],"transports":{"docker":{` + strings.Join(docker, ",") + `}}}`
}

func (p *pool) addPolicy(text, host string) {
	p.Policies, p.Hosts = append(p.Policies, text), append(p.Hosts, host)
}

// addCase makes a case for the last policy. Most have a reference in the scope, and a signature
// that the identity wants.
func (p *pool) addCase(kind, host, scope, identity string) {
	names := []string{"prod/app:v1", "prod/app@" + p.digest.String()}
	switch {
	case p.random.IntN(10) == 0:
		names = []string{"prod/app:v2", "prod/other:v1", "app:v1", "prod/app/deep:v1", "prod/appendix:v1", "team/app@" + p.digest.String()}
	case strings.HasSuffix(scope, ":v1"):
		names = names[:1]
	case strings.Contains(scope, "@"):
		names = names[1:]
	}
	name := names[p.random.IntN(len(names))]
	k := containersCase{Policy: len(p.Policies) - 1, Reference: slices.Index(p.References, host+"/"+name)}
	wanted := host + "/" + name
	switch {
	case strings.Contains(identity, "exact") && strings.Contains(identity, "quay.io"):
		wanted = "quay.io/prod/app:v1"
	case strings.Contains(identity, "remap"):
		wanted = "quay.io/" + name
	}
	if good, ok := p.good[kind][wanted]; ok && p.random.IntN(4) > 0 {
		k.Signatures = append(k.Signatures, good)
	}
	for len(k.Signatures) == 0 || p.random.IntN(3) == 0 {
		from := p.byType[kind]
		if p.random.IntN(8) == 0 {
			from = p.byType[kinds[p.random.IntN(len(kinds))]]
		}
		k.Signatures = append(k.Signatures, from[p.random.IntN(len(from))])
	}
	p.random.Shuffle(len(k.Signatures), func(a, b int) { k.Signatures[a], k.Signatures[b] = k.Signatures[b], k.Signatures[a] })
	p.Cases = append(p.Cases, k)
}

// addInvalid adds policies that are invalid, or nearly so.
func (p *pool) addInvalid() {
	for _, text := range []string{
		`{}`, `{"default":[]}`, `{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}`, `{"default":[{"type":"reject"}],"more":1}`, `[]`, `{"Default":[{"type":"reject"}]}`,
		`{"default":[{"type":"reject","keyPath":"/x"}]}`, `{"default":[{"type":"insecureAcceptAnything","keyType":"GPGKeys"}]}`, `{"default":[{"type":"Reject"}]}`, `{"default":[{}]}`,
		`{"default":[{"type":"reject"}],"transports":{"docker":{"HOST":[]}}}`, `{"default":[{"type":"reject"}],"transports":{"docker":{"HOST":[{"type":"reject"}]},"dir":{"":[{"type":"reject"}]}}}`,
		`{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}`, `{"default":[{"type":"signedBy","keyData":"GPG"}]}`, `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"GPG","keyPath":"/x"}]}`,
		`{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"GPG","rekorPublicKeyData":"KEY"}]}`, `{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"GPG","signedIdentty":{"type":"matchExact"}}]}`,
		`{"default":[{"type":"sigstoreSigned","keyData":"KEY","keyType":"GPGKeys"}]}`, `{"default":[{"type":"sigstoreSigned"}]}`, `{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{}}]}`,
		`{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"any"}}]}`, `{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"matchExact","prefix":"a.example.com"}}]}`,
		`{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"exactReference"}}]}`, `{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"exactReference","dockerReference":"quay.io/a"}}]}`,
		`{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"exactReference","dockerReference":"UPPER"}}]}`, `{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"exactRepository","dockerRepository":"quay.io/a"}}]}`,
		`{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"remapIdentity","prefix":"quay.io","signedPrefix":"/a"}}]}`, `{"default":[{"type":"sigstoreSigned","keyData":"KEY","signedIdentity":{"type":"remapIdentity","prefix":"quay.io"}}]}`,
		`{"default":[{"type":"sigstoreSigned","keyData":"KEY","fulcio":{}}]}`, `{"default":[{"type":"sigstoreSigned","fulcio":{"caData":"KEY","oidcIssuer":"a","subjectEmail":"b"}}]}`,
	} {
		p.addPolicy(strings.NewReplacer("GPG\"", p.gpg+"\"", "KEY", p.key, "HOST", host).Replace(text), host)
	}
}

// addNotation adds trust policies with scopes.
func (p *pool) addNotation(t *testing.T) {
	n := &p.Notation
	n.TrustStore = map[string]string{}
	first := len(p.Signatures)
	for _, name := range []string{"prod", "dev", "unknown"} {
		signer := signtest.NewNotation(t, name)
		if name != "unknown" {
			n.TrustStore["x509/ca/"+name+"/ca.pem"] = certificateOf(t, signer)
		}
		p.Signatures = append(p.Signatures, signer.Sign(signatures.TypeNotaryJWS, p.digest, 0, nil), signer.Sign(signatures.TypeNotaryJWS, other, 0, nil))
	}
	last := len(p.Signatures)
	begin := len(p.References)
	for _, repository := range []string{"prod/app", "prod/other", "dev/app", "app"} {
		p.References = append(p.References, host+"/"+repository+"@"+p.digest.String())
	}
	statement := func(name, scope string) string {
		return `{"name":"` + name + `","registryScopes":["` + scope + `"],"trustStores":["ca:` + name + `"],"trustedIdentities":["*"],"signatureVerification":{"level":"strict","override":{"revocation":"skip"}}}`
	}
	for _, statements := range []string{
		statement("prod", "*"), statement("prod", host+"/prod/app"), statement("prod", host+"/prod/app") + "," + statement("dev", host+"/dev/app"),
		statement("prod", host+"/prod/app") + "," + statement("dev", "*"), statement("prod", host+`/prod/app","`+host+"/prod/other") + "," + statement("dev", "*"),
		statement("prod", "other.example.com/prod/app"), statement("dev", host+"/prod/app") + "," + statement("prod", "*"),
	} {
		n.TrustPolicies = append(n.TrustPolicies, `{"version":"1.0","trustPolicies":[`+statements+`]}`)
		for r := begin; r < len(p.References); r++ {
			for s := first; s < last; s++ {
				n.Cases = append(n.Cases, notationCase{len(n.TrustPolicies) - 1, r, s})
			}
		}
	}
}

// certificateOf returns the authority of a signer.
func certificateOf(t *testing.T, n *signtest.Notation) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(n.TrustStore(), "x509", "ca", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
