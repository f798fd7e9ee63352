package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"tallyman/signatures"
)

// policyRequirement is one of the requirements in a containers-policy.json(5).
type policyRequirement struct {
	Type string `json:"type"`

	// signedBy.
	KeyType string `json:"keyType"`

	// signedBy and sigstoreSigned.
	KeyPath        string          `json:"keyPath"`
	KeyPaths       []string        `json:"keyPaths"`
	KeyData        []byte          `json:"keyData"`
	KeyDatas       [][]byte        `json:"keyDatas"`
	SignedIdentity json.RawMessage `json:"signedIdentity"`

	// sigstoreSigned.
	Fulcio *struct {
		CAPath       string `json:"caPath"`
		CAData       []byte `json:"caData"`
		OIDCIssuer   string `json:"oidcIssuer"`
		SubjectEmail string `json:"subjectEmail"`
	} `json:"fulcio"`
	PKI *struct {
		CARootsPath         string `json:"caRootsPath"`
		CARootsData         []byte `json:"caRootsData"`
		CAIntermediatesPath string `json:"caIntermediatesPath"`
		CAIntermediatesData []byte `json:"caIntermediatesData"`
		SubjectEmail        string `json:"subjectEmail"`
		SubjectHostname     string `json:"subjectHostname"`
	} `json:"pki"`
	RekorPath  string   `json:"rekorPublicKeyPath"`
	RekorData  []byte   `json:"rekorPublicKeyData"`
	RekorPaths []string `json:"rekorPublicKeyPaths"`
	RekorDatas [][]byte `json:"rekorPublicKeyDatas"`
}

// compilePolicyFile makes rules of a containers-policy.json: of its default, and of
// the scopes of the docker transport.
func compilePolicyFile(path string, hosts []string, files *fileReader) ([]rule, error) {
	content, err := files.file(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Default    []policyRequirement                       `json:"default"`
		Transports map[string]map[string][]policyRequirement `json:"transports"`
	}
	if err := exactJSON(content, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Default) == 0 {
		return nil, fmt.Errorf(`%s: default is required: want a list such as [{"type":"reject"}]`, path)
	}
	var rules []rule
	var errs []error
	add := func(at string, s scope, requirements []policyRequirement) {
		r, err := compileRequirements("policy.json "+at, s, requirements, hosts, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", path, at, err))
		}
		rules = append(rules, r)
	}
	docker := file.Transports["docker"]
	if _, ok := docker[""]; !ok {
		add("default", scope{text: "*"}, file.Default)
	}
	for text, requirements := range docker {
		at, s := fmt.Sprintf("transports.docker[%q]", text), scope{text: text, hosted: true}
		if text == "" {
			s = scope{text: "*"}
		}
		err := s.validate()
		if host, _, _ := strings.Cut(text, "/"); err == nil && s.hosted && len(hosts) == 0 {
			err = needsHost("the scope", host)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", path, at, err))
			continue
		}
		add(at, s, requirements)
	}
	slices.SortFunc(rules, func(a, b rule) int { return strings.Compare(a.policy, b.policy) })
	return rules, errors.Join(errs...)
}

func compileRequirements(name string, s scope, requirements []policyRequirement, hosts []string, all *fileReader) (r rule, err error) {
	r = rule{scope: s, policy: name, silent: true}
	files := &fileReader{}
	defer func() { all.add(files) }()
	if len(requirements) == 0 {
		return r, errors.New(`want at least one requirement, such as {"type":"reject"}`)
	}
	for i, q := range requirements {
		if err := q.validate(); err != nil {
			return r, fmt.Errorf("[%d]: %w", i, err)
		}
		switch q.Type {
		case "insecureAcceptAnything":
			continue
		case "reject":
			r.silent, r.rejects = false, true
			continue
		}
		g, err := q.compile(name, hosts, files)
		if err != nil {
			return r, fmt.Errorf("[%d]: %w", i, err)
		}
		r.silent, r.groups = false, append(r.groups, g)
	}
	r.digest, err = files.fingerprint.digestOf([]any{s.text, requirements, hosts})
	return r, err
}

// requirementFields are the fields of each type: those that hold keys, of which one is wanted, and
// the others.
var requirementFields = map[string]struct{ keys, others []string }{
	"insecureAcceptAnything": {},
	"reject":                 {},
	"signedBy":               {[]string{"keyData", "keyPath", "keyPaths"}, []string{"keyType", "signedIdentity"}},
	"sigstoreSigned": {[]string{"fulcio", "keyData", "keyDatas", "keyPath", "keyPaths", "pki"},
		slices.Concat(logFields, []string{"signedIdentity"})},
}

// logFields are the fields with the keys of a log, of which one may be set.
var logFields = []string{"rekorPublicKeyData", "rekorPublicKeyDatas", "rekorPublicKeyPath", "rekorPublicKeyPaths"}

// validate returns an error for a field that does not belong to the type, and for none or several
// of which one is wanted. A type that is not known is left to compile.
func (q *policyRequirement) validate() error {
	fields, known := requirementFields[q.Type]
	if !known {
		return nil
	}
	set := names(map[string]bool{
		"keyType": q.KeyType != "", "keyPath": q.KeyPath != "", "keyPaths": len(q.KeyPaths) > 0, "keyData": len(q.KeyData) > 0, "keyDatas": len(q.KeyDatas) > 0,
		"fulcio": q.Fulcio != nil, "pki": q.PKI != nil, "signedIdentity": len(q.SignedIdentity) > 0,
		"rekorPublicKeyPath": q.RekorPath != "", "rekorPublicKeyData": len(q.RekorData) > 0,
		"rekorPublicKeyPaths": len(q.RekorPaths) > 0, "rekorPublicKeyDatas": len(q.RekorDatas) > 0,
	})
	var keys, logs []string
	for _, name := range set {
		switch {
		case slices.Contains(fields.keys, name):
			keys = append(keys, name)
		case !slices.Contains(fields.others, name):
			return fmt.Errorf("%s does not belong to type %q", name, q.Type)
		case slices.Contains(logFields, name):
			logs = append(logs, name)
		}
	}
	switch {
	case len(fields.keys) > 0 && len(keys) != 1:
		return fmt.Errorf("want one of %s", strings.Join(fields.keys, ", "))
	case len(logs) > 1:
		return fmt.Errorf("want one of %s", strings.Join(logs, " and "))
	case q.Fulcio != nil && len(logs) == 0:
		return fmt.Errorf("fulcio needs a log: want one of %s", strings.Join(logFields, ", "))
	case q.PKI != nil && len(logs) > 0:
		return fmt.Errorf("%s does not belong to pki", logs[0])
	}
	return nil
}

// names returns the names that are set, in order.
func names(set map[string]bool) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(set)), func(name string) bool { return !set[name] })
}

func (q *policyRequirement) compile(name string, hosts []string, files *fileReader) (*requirement, error) {
	g := &requirement{policy: name}
	var err error
	if g.identity, err = q.identity(hosts); err != nil {
		return nil, fmt.Errorf("signedIdentity: %w", err)
	}
	switch q.Type {
	case "signedBy":
		if q.KeyType != "GPGKeys" {
			return nil, fmt.Errorf("keyType %q is not supported: want GPGKeys", q.KeyType)
		}
		g.roots, err = newGPG("", &signatures.GPG{KeyPath: q.KeyPath, KeyPaths: q.KeyPaths, KeyData: string(q.KeyData)}, files)
	case "sigstoreSigned":
		g.roots, err = q.sigstore(files)
	default:
		err = fmt.Errorf("type %q is not valid: want insecureAcceptAnything, reject, signedBy or sigstoreSigned", q.Type)
	}
	return g, err
}

// sigstore makes the roots of a sigstoreSigned requirement.
func (q *policyRequirement) sigstore(files *fileReader) ([]rootOfTrust, error) {
	log, err := q.log(files)
	if err != nil {
		return nil, err
	}
	switch {
	case q.Fulcio != nil:
		f := &signatures.FulcioCAWithRekor{
			FulcioCAPath: q.Fulcio.CAPath, FulcioCAData: string(q.Fulcio.CAData), RekorKeyData: log,
			FulcioSubject: signatures.FulcioSubject{OIDCIssuer: q.Fulcio.OIDCIssuer, SignedEmail: q.Fulcio.SubjectEmail},
		}
		return newFulcio("", f, files)
	case q.PKI != nil:
		return newPKI("", &signatures.PKI{
			CARootsPath: q.PKI.CARootsPath, CARootsData: string(q.PKI.CARootsData),
			CAIntermediatesPath: q.PKI.CAIntermediatesPath, CAIntermediatesData: string(q.PKI.CAIntermediatesData),
			Subject: signatures.PKISubject{Email: q.PKI.SubjectEmail, Hostname: q.PKI.SubjectHostname},
		}, files)
	}
	keys := &signatures.PublicKey{KeyPath: q.KeyPath, KeyPaths: q.KeyPaths, KeyData: string(q.KeyData), RekorData: log}
	for _, data := range q.KeyDatas {
		keys.KeyData += string(data) + "\n"
	}
	return newPublicKeys("", keys, files)
}

// log returns the log's public keys, "" if none is wanted.
func (q *policyRequirement) log(files *fileReader) (string, error) {
	all := string(q.RekorData)
	for _, data := range q.RekorDatas {
		all += "\n" + string(data)
	}
	paths := q.RekorPaths
	if q.RekorPath != "" {
		paths = append([]string{q.RekorPath}, paths...)
	}
	for _, path := range paths {
		content, err := files.file(path)
		if err != nil {
			return "", fmt.Errorf("rekorPublicKey: %w", err)
		}
		all += "\n" + string(content)
	}
	return all, nil
}

// identity reads a signedIdentity, whose types are ours with a small first letter.
func (q *policyRequirement) identity(hosts []string) (identity, error) {
	var s struct {
		Type             string `json:"type"`
		DockerReference  string `json:"dockerReference,omitempty"`
		DockerRepository string `json:"dockerRepository,omitempty"`
		Prefix           string `json:"prefix,omitempty"`
		SignedPrefix     string `json:"signedPrefix,omitempty"`
	}
	if len(q.SignedIdentity) == 0 {
		return identity{match: matchRepoDigestOrExact}, nil
	}
	if err := exactJSON(q.SignedIdentity, &s); err != nil {
		return identity{}, err
	}
	fields := map[string]string{"dockerReference": s.DockerReference, "dockerRepository": s.DockerRepository, "prefix": s.Prefix, "signedPrefix": s.SignedPrefix}
	want, ok := identityFields[s.Type]
	if !ok {
		return identity{}, fmt.Errorf("type %q is not valid: want matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository or remapIdentity", s.Type)
	}
	for name, value := range fields {
		if (value != "") != slices.Contains(want, name) {
			return identity{}, fmt.Errorf("%s: %s wants the fields %v", name, s.Type, want)
		}
	}
	config := signatures.SignedIdentity{MatchPolicy: capitalized(s.Type)}
	if exact := s.DockerReference + s.DockerRepository; exact != "" {
		config.ExactRepository = &signatures.ExactRepository{Repository: exact}
	}
	if s.Prefix != "" {
		config.RemapIdentity = &signatures.RemapIdentity{Prefix: s.Prefix, SignedPrefix: s.SignedPrefix}
	}
	return newIdentity(config, hosts)
}

// identityFields are the fields besides type of each type of signedIdentity.
var identityFields = map[string][]string{
	"matchExact": nil, "matchRepoDigestOrExact": nil, "matchRepository": nil,
	"exactReference": {"dockerReference"}, "exactRepository": {"dockerRepository"}, "remapIdentity": {"prefix", "signedPrefix"},
}

func capitalized(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
