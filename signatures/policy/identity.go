package policy

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"

	"tallyman/signatures"
)

// Match policies of signedIdentity, in OpenShift's words. Their rules are those of
// containers-policy.json(5).
const (
	// matchDefault is matchRepoDigestOrExact, but takes a signature that names a repository
	// alone for all that is in it: so cosign signs.
	matchDefault           = ""
	matchRepoDigestOrExact = "MatchRepoDigestOrExact"
	matchRepository        = "MatchRepository"
	matchExact             = "MatchExact"
	exactRepository        = "ExactRepository"
	exactReference         = "ExactReference"
	remapIdentity          = "RemapIdentity"
)

// identity says how the reference that a signature names has to match the image's.
type identity struct {
	match                string
	exact                string
	prefix, signedPrefix string
}

func newIdentity(s signatures.SignedIdentity, hosts []string) (identity, error) {
	i := identity{match: s.MatchPolicy}
	switch i.match {
	case matchDefault, matchRepoDigestOrExact, matchRepository, matchExact:
	case exactRepository, exactReference:
		if s.ExactRepository == nil || s.ExactRepository.Repository == "" {
			return i, fmt.Errorf("%s needs exactRepository.repository", i.match)
		}
		named, err := reference.ParseNormalizedNamed(s.ExactRepository.Repository)
		if err != nil {
			return i, fmt.Errorf("exactRepository.repository: %q: %w", s.ExactRepository.Repository, err)
		}
		if i.match == exactReference && reference.IsNameOnly(named) {
			return i, fmt.Errorf("exactRepository.repository: %q names no tag or digest, which ExactReference needs", s.ExactRepository.Repository)
		}
		if i.match == exactRepository {
			named = reference.TrimNamed(named)
		}
		i.exact = named.String()
		if len(hosts) == 0 {
			return i, needsHost("exactRepository.repository", "")
		}
	case remapIdentity:
		if s.RemapIdentity == nil || s.RemapIdentity.Prefix == "" || s.RemapIdentity.SignedPrefix == "" {
			return i, fmt.Errorf("RemapIdentity needs remapIdentity.prefix and remapIdentity.signedPrefix")
		}
		for _, prefix := range []string{s.RemapIdentity.Prefix, s.RemapIdentity.SignedPrefix} {
			if !remapPrefix.MatchString(prefix) {
				return i, fmt.Errorf("remapIdentity: prefix %q is not valid: want host[:port] or host[:port]/path", prefix)
			}
		}
		i.prefix, i.signedPrefix = s.RemapIdentity.Prefix, s.RemapIdentity.SignedPrefix
		if len(hosts) == 0 {
			return i, needsHost("remapIdentity", "")
		}
	default:
		return i, fmt.Errorf("matchPolicy %q is not valid: want MatchRepoDigestOrExact, MatchRepository, MatchExact, ExactRepository, ExactReference or RemapIdentity", s.MatchPolicy)
	}
	return i, nil
}

// remapPrefix is a prefix of RemapIdentity.
var remapPrefix = regexp.MustCompile("^" + reference.DomainRegexp.String() + "(/" + reference.NameRegexp.String() + ")?$")

// check reports a reference that does not match the target. A signature of a format without
// references has nothing to match.
func (i identity) check(claimed *payload, t *target) *failure {
	if !claimed.hasReference {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(claimed.reference)
	if err != nil {
		return &failure{signatures.ReasonIdentityMismatch, "the signature is for another repository"}
	}
	if i.exact != "" {
		if i.match == exactRepository && named.Name() == i.exact || i.match == exactReference && named.String() == i.exact {
			return nil
		}
		return &failure{signatures.ReasonIdentityMismatch, "the signature is for another repository"}
	}
	if len(t.hosts) == 0 {
		return &failure{signatures.ReasonHostNotConfigured, "the signature names a host, and the configuration does not say this registry's: set imageapi.registryhost"}
	}
	failed := &failure{signatures.ReasonIdentityMismatch, "the signature is for another repository"}
	for _, host := range t.hosts {
		own, err := reference.ParseNamed(i.remap(host+"/"+t.repository) + t.identifier())
		if err != nil {
			continue // the grammar of references does not have such a host
		}
		if i.matches(named, own) {
			return nil
		}
		if named.Name() == own.Name() {
			failed = &failure{signatures.ReasonIdentityMismatch, "the signature is for the repository, but not for this tag or digest of it; matchPolicy MatchRepository takes that"}
		}
	}
	return failed
}

// remap replaces the prefix of a name.
func (i identity) remap(name string) string {
	if rest, ok := strings.CutPrefix(name, i.prefix); ok && i.prefix != "" && (rest == "" || rest[0] == '/') {
		return i.signedPrefix + rest
	}
	return name
}

// matches reports whether what was signed is own, the name of the target.
func (i identity) matches(signed, own reference.Named) bool {
	_, tagged := own.(reference.Tagged)
	switch {
	case i.match == matchRepository, i.match == matchDefault && reference.IsNameOnly(signed):
		return signed.Name() == own.Name()
	case reference.IsNameOnly(signed):
		return false
	case i.match == matchExact, tagged:
		return signed.String() == own.String()
	}
	return signed.Name() == own.Name() // the image is named by its digest, which the signature is for
}
