package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"tallyman/signatures"
)

// rule is the part of a policy for one scope.
type rule struct {
	scope  scope
	policy string
	// digest is that of the policy, with all files that it names.
	digest digest.Digest
	// groups have all to be satisfied, each by some signature; of a group's roots
	// any one suffices.
	groups []*requirement
	// rejects is set if the policy trusts nobody.
	rejects bool
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

// applicable has the rules for one target: those with the most specific scope.
type applicable struct {
	target
	policies string // the names of those that cover it, "" if none does, or if they accept everything
	rejected bool   // by one of them
	groups   []*requirement
	digests  []digest.Digest // of all rules
	// satisfied says which of groups some signature satisfies.
	satisfied []bool
}

// accepts reports whether all that the policies ask for is satisfied. A policy that accepts
// everything asks for nothing; one that rejects everything is never satisfied.
func (a *applicable) accepts() bool {
	return !a.rejected && !slices.Contains(a.satisfied, false)
}

// applicable returns the rules for a target.
func (r *ruleset) applicable(t target) *applicable {
	a := &applicable{target: t}
	best := -1
	for _, candidate := range r.rules {
		level := candidate.scope.specificity(&t)
		switch {
		case level < 0 || level < best:
			continue
		case level > best:
			best, a.policies, a.rejected, a.groups, a.digests = level, "", false, nil, nil
		}
		a.digests = append(a.digests, candidate.digest)
		a.rejected = a.rejected || candidate.rejects
		if !candidate.silent {
			a.policies = strings.TrimPrefix(a.policies+", "+candidate.policy, ", ")
			a.groups = append(a.groups, candidate.groups...)
		}
	}
	if a.rejected {
		a.groups = nil
	}
	a.satisfied = make([]bool, len(a.groups))
	return a
}

// covers returns the rules for each name of an image: first its digest in the repository, then
// each of its tags there.
func (r *ruleset) covers(hosts []string, subject digest.Digest, repositories, tags []string) []*applicable {
	byRepository := map[string][]string{}
	for _, full := range tags {
		if at := strings.LastIndexByte(full, ':'); at >= 0 {
			byRepository[full[:at]] = append(byRepository[full[:at]], full[at+1:])
		}
	}
	var all []*applicable
	for _, repository := range repositories {
		all = append(all, r.applicable(target{hosts: hosts, repository: repository, digest: subject}))
		for _, tag := range byRepository[repository] {
			all = append(all, r.applicable(target{hosts: hosts, repository: repository, tag: tag, digest: subject}))
		}
	}
	return all
}

// digestOf returns the digest of all rules for some names of an image, "" if there are none.
func digestOf(covers []*applicable) string {
	var all []digest.Digest
	for _, a := range covers {
		all = append(all, a.digests...)
	}
	if len(all) == 0 {
		return ""
	}
	slices.Sort(all)
	return digest.FromString(fmt.Sprint(slices.Compact(all))).String()
}

// compile makes rules of the configuration, and reads the files it names.
func compile(o Options, hosts []string, files *fileReader) ([]rule, error) {
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
		compiled, err := compilePolicy(p, hosts, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s (%s): %w", at, p.Name, err))
		}
		rules = append(rules, compiled...)
	}
	if o.PolicyFile != "" {
		compiled, err := compilePolicyFile(o.PolicyFile, hosts, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("policyfile: %w", err))
		}
		rules = append(rules, compiled...)
	}
	return rules, errors.Join(errs...)
}

func compilePolicy(p signatures.Policy, hosts []string, all *fileReader) ([]rule, error) {
	var errs []error
	files := &fileReader{}
	defer func() { all.add(files) }()
	g := &requirement{policy: p.Name}
	var err error
	if g.identity, err = newIdentity(p.SignedIdentity, hosts); err != nil {
		errs = append(errs, fmt.Errorf("signedIdentity: %w", err))
	}
	if len(p.RootsOfTrust) == 0 {
		errs = append(errs, errors.New("rootsOfTrust is required: want at least one"))
	}
	for i, r := range p.RootsOfTrust {
		roots, err := newRoot(r, hosts, files)
		if err != nil {
			errs = append(errs, fmt.Errorf("rootsOfTrust[%d]: %w", i, err))
		}
		g.roots = append(g.roots, roots...)
	}
	if len(p.Scopes) == 0 {
		errs = append(errs, errors.New("scopes is required: want at least one, * for everything"))
	}
	identifier, err := files.fingerprint.digestOf([]any{p, hosts})
	if err != nil {
		errs = append(errs, err)
	}
	var rules []rule
	for _, s := range p.Scopes {
		parsed := newScope(s, hosts)
		err := parsed.validate()
		if err == nil {
			err = parsed.reachable(hosts)
		}
		if err != nil {
			errs = append(errs, err)
		}
		rules = append(rules, rule{scope: parsed, policy: p.Name, digest: identifier, groups: []*requirement{g}})
	}
	return rules, errors.Join(errs...)
}

// newRoot makes a root of the policyType; a root with several keys makes several.
func newRoot(r signatures.RootOfTrust, hosts []string, files *fileReader) ([]rootOfTrust, error) {
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
		roots, err = newNotary(r.Name, r.Notary, hosts, files)
	default:
		return nil, fmt.Errorf("policyType %q is not valid, or its section is missing: want PublicKey, Sigstore, FulcioCAWithRekor, PKI, GPG or Notary, and the section of that name", r.PolicyType)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.PolicyType, err)
	}
	return roots, nil
}
