package policy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tallyman/signatures"
)

// rule is the part of a policy for one scope.
type rule struct {
	scope  scope
	policy string
	// groups have all to be satisfied, each by some signature; of a group's roots
	// any one suffices. Without groups nobody is trusted.
	groups []*requirement
	// silent is set if the policy accepts everything: then it says nothing of
	// signatures.
	silent bool
}

// requirement is the roots of trust of one requirement.
type requirement struct {
	policy   string
	roots    []rootOfTrust
	identity identity
}

// scope is the set of repositories that a rule covers.
type scope string

// levels of how specific a scope is; of paths, more so by the number of their parts.
const (
	levelAll       = 0
	levelWildcard  = 1
	levelPath      = 1000
	levelReference = 1_000_000
)

// specificity returns how specifically the scope covers a repository, -1 if not at
// all. hosts are this registry's names, tags the image's tags in the repository.
func (s scope) specificity(hosts []string, repository string, tags []string) int {
	text := string(s)
	switch {
	case text == "" || text == "*":
		return levelAll
	case strings.HasPrefix(text, "*."):
		for _, host := range hosts {
			if strings.HasSuffix(withoutPort(host), text[1:]) {
				return levelWildcard + strings.Count(text, ".")
			}
		}
		return -1
	}
	if path, tag, ok := cutTag(text); ok {
		if !slices.Contains(tags, tag) || scope(path).parts(hosts, repository) != strings.Count(repository, "/")+1 {
			return -1
		}
		return levelReference
	}
	if parts := s.parts(hosts, repository); parts >= 0 {
		return levelPath + parts
	}
	return -1
}

// parts returns how many parts of the repository's path the scope names, -1 if it
// does not cover the repository.
func (s scope) parts(hosts []string, repository string) int {
	path := string(s)
	if first, rest, _ := strings.Cut(path, "/"); IsHost(first) || slices.Contains(hosts, first) {
		if !slices.Contains(hosts, first) {
			return -1
		}
		path = rest
	}
	switch {
	case path == "":
		return 0
	case path == repository || strings.HasPrefix(repository, path+"/"):
		return strings.Count(path, "/") + 1
	}
	return -1
}

// IsHost reports whether the first part of a reference is a host, by the grammar of
// references: one with a dot or a colon, or localhost.
func IsHost(part string) bool { return part == "localhost" || strings.ContainsAny(part, ".:") }

func withoutPort(host string) string {
	name, _, _ := strings.Cut(host, ":")
	return name
}

// cutTag cuts a tag off a reference; a port is none.
func cutTag(text string) (path, tag string, ok bool) {
	at := strings.LastIndexByte(text, ':')
	if at < 0 || strings.Contains(text[at:], "/") {
		return text, "", false
	}
	if _, err := strconv.ParseUint(text[at+1:], 10, 16); err == nil && !strings.Contains(text, "/") {
		return text, "", false
	}
	return text[:at], text[at+1:], true
}

// validate returns an error for an invalid scope.
func (s scope) validate() error {
	text := string(s)
	switch {
	case text == "*":
		return nil
	case text == "", strings.ContainsAny(text, " \t@"), strings.Contains(text, "//"), strings.HasPrefix(text, "/"), strings.HasSuffix(text, "/"),
		strings.Contains(strings.TrimPrefix(text, "*."), "*"):
		return fmt.Errorf("scope %q is not valid: want host/namespace, host/repository, host/repository:tag, *.example.com, the same without the host, or *", text)
	}
	return nil
}

// applicable has the rules for one repository of an image.
type applicable struct {
	repository string
	hosts      []string
	tags       []string // of the image, in the repository
	policies   string   // the names of those that cover it, "" if none does
	groups     []*requirement
}

// covers returns the cover of each repository: the rules with the most specific scope.
func (r *ruleset) covers(hosts, repositories, tags []string) []applicable {
	var all []applicable
	for _, repository := range repositories {
		c := applicable{repository: repository, hosts: hosts}
		for _, full := range tags {
			if tag, ok := strings.CutPrefix(full, repository+":"); ok {
				c.tags = append(c.tags, tag)
			}
		}
		best := -1
		for _, candidate := range r.rules {
			level := candidate.scope.specificity(hosts, repository, c.tags)
			switch {
			case level < 0 || level < best:
				continue
			case level > best:
				best, c.policies, c.groups = level, "", nil
			}
			if !candidate.silent {
				c.policies = strings.TrimPrefix(c.policies+", "+candidate.policy, ", ")
				c.groups = append(c.groups, candidate.groups...)
			}
		}
		all = append(all, c)
	}
	return all
}

// compile makes rules of the configuration, and reads the files it names.
func compile(o Options, files *fileReader) ([]rule, error) {
	var rules []rule
	var errs []error
	names := map[string]bool{}
	for i, p := range o.Policies {
		at := fmt.Sprintf("policies[%d]", i)
		switch {
		case p.Name == "":
			errs = append(errs, fmt.Errorf("%s.name is required", at))
		case names[p.Name]:
			errs = append(errs, fmt.Errorf("%s.name: %q is used twice", at, p.Name))
		}
		names[p.Name] = true
		compiled, err := compilePolicy(p, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s (%s): %w", at, p.Name, err))
		}
		rules = append(rules, compiled...)
	}
	if o.PolicyFile != "" {
		compiled, err := compilePolicyFile(o.PolicyFile, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("policyfile: %w", err))
		}
		rules = append(rules, compiled...)
	}
	return rules, errors.Join(errs...)
}

func compilePolicy(p signatures.Policy, files *fileReader) ([]rule, error) {
	var errs []error
	g := &requirement{policy: p.Name}
	var err error
	if g.identity, err = newIdentity(p.SignedIdentity); err != nil {
		errs = append(errs, fmt.Errorf("signedIdentity: %w", err))
	}
	if len(p.RootsOfTrust) == 0 {
		errs = append(errs, errors.New("rootsOfTrust is required: want at least one"))
	}
	for i, r := range p.RootsOfTrust {
		roots, err := newRoot(r, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("rootsOfTrust[%d]: %w", i, err))
		}
		g.roots = append(g.roots, roots...)
	}
	if len(p.Scopes) == 0 {
		errs = append(errs, errors.New("scopes is required: want at least one, * for everything"))
	}
	var rules []rule
	for _, s := range p.Scopes {
		if err := scope(s).validate(); err != nil {
			errs = append(errs, err)
		}
		rules = append(rules, rule{scope: scope(s), policy: p.Name, groups: []*requirement{g}})
	}
	return rules, errors.Join(errs...)
}

// newRoot makes a root of the policyType; a root with several keys makes several.
func newRoot(r signatures.RootOfTrust, files *fileReader) ([]rootOfTrust, error) {
	sections := map[string]bool{
		"publicKey": r.PublicKey != nil, "sigstore": r.Sigstore != nil, "fulcioCAWithRekor": r.Fulcio != nil,
		"pki": r.PKI != nil, "gpg": r.GPG != nil, "notary": r.Notary != nil,
	}
	for name, set := range sections {
		if set && !strings.EqualFold(name, r.PolicyType) {
			return nil, fmt.Errorf("%s is set, but policyType is %q", name, r.PolicyType)
		}
	}
	var roots []rootOfTrust
	var err error
	switch {
	case r.PolicyType == "PublicKey" && r.PublicKey != nil:
		roots, err = newPublicKeys(r.Name, r.PublicKey, files)
	case r.PolicyType == "Sigstore" && r.Sigstore != nil:
		roots, err = newSigstore(r.Name, r.Sigstore, files)
	case r.PolicyType == "FulcioCAWithRekor" && r.Fulcio != nil:
		roots, err = newFulcio(r.Name, r.Fulcio, files)
	case r.PolicyType == "PKI" && r.PKI != nil:
		roots, err = newPKI(r.Name, r.PKI, files)
	case r.PolicyType == "GPG" && r.GPG != nil:
		roots, err = newGPG(r.Name, r.GPG, files)
	case r.PolicyType == "Notary" && r.Notary != nil:
		roots, err = newNotary(r.Name, r.Notary, files)
	default:
		return nil, fmt.Errorf("policyType %q is not valid, or its section is missing: want PublicKey, Sigstore, FulcioCAWithRekor, PKI, GPG or Notary, and the section of that name", r.PolicyType)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.PolicyType, err)
	}
	return roots, nil
}
