package policy

import (
	"encoding/json"
	"errors"
	"fmt"
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
func compilePolicyFile(path string, files *fileReader) ([]rule, error) {
	content, err := files.file(path)
	if err != nil {
		return nil, err
	}
	var file struct {
		Default    []policyRequirement                       `json:"default"`
		Transports map[string]map[string][]policyRequirement `json:"transports"`
	}
	if err := strictJSON(content, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(file.Default) == 0 {
		return nil, fmt.Errorf(`%s: default is required: want a list such as [{"type":"reject"}]`, path)
	}
	var rules []rule
	var errs []error
	add := func(at string, s scope, requirements []policyRequirement) {
		r, err := compileRequirements("policy.json "+at, s, requirements, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", path, at, err))
		}
		rules = append(rules, r)
	}
	docker := file.Transports["docker"]
	if _, ok := docker[""]; !ok {
		add("default", "*", file.Default)
	}
	for text, requirements := range docker {
		at, s := fmt.Sprintf("transports.docker[%q]", text), scope(text)
		if text == "" {
			s = "*"
		}
		if err := s.validate(); err != nil && !strings.Contains(text, "@") { // digests cannot be covered apart
			errs = append(errs, fmt.Errorf("%s: %s: %w", path, at, err))
			continue
		}
		add(at, s, requirements)
	}
	slices.SortFunc(rules, func(a, b rule) int { return strings.Compare(a.policy, b.policy) })
	return rules, errors.Join(errs...)
}

func compileRequirements(name string, s scope, requirements []policyRequirement, files *fileReader) (rule, error) {
	r := rule{scope: s, policy: name, silent: true}
	if len(requirements) == 0 {
		return r, errors.New(`want at least one requirement, such as {"type":"reject"}`)
	}
	for i, q := range requirements {
		switch q.Type {
		case "insecureAcceptAnything":
			continue
		case "reject":
			r.silent, r.groups = false, nil
			return r, nil
		}
		g, err := q.compile(name, files)
		if err != nil {
			return r, fmt.Errorf("[%d]: %w", i, err)
		}
		r.silent, r.groups = false, append(r.groups, g)
	}
	return r, nil
}

func (q *policyRequirement) compile(name string, files *fileReader) (*requirement, error) {
	g := &requirement{policy: name}
	var err error
	if g.identity, err = q.identity(); err != nil {
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
func (q *policyRequirement) identity() (identity, error) {
	var s struct {
		Type             string `json:"type"`
		DockerReference  string `json:"dockerReference"`
		DockerRepository string `json:"dockerRepository"`
		Prefix           string `json:"prefix"`
		SignedPrefix     string `json:"signedPrefix"`
	}
	if len(q.SignedIdentity) > 0 {
		if err := strictJSON(q.SignedIdentity, &s); err != nil {
			return identity{}, err
		}
	}
	config := signatures.SignedIdentity{MatchPolicy: capitalized(s.Type)}
	if exact := s.DockerReference + s.DockerRepository; exact != "" {
		config.ExactRepository = &signatures.ExactRepository{Repository: exact}
	}
	if s.Prefix != "" {
		config.RemapIdentity = &signatures.RemapIdentity{Prefix: s.Prefix, SignedPrefix: s.SignedPrefix}
	}
	return newIdentity(config)
}

func capitalized(s string) string {
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
