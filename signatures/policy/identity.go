package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"tallyman/signatures"
)

// Match policies of signedIdentity, in OpenShift's words.
const (
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

func newIdentity(s signatures.SignedIdentity) (identity, error) {
	i := identity{match: s.MatchPolicy}
	switch i.match {
	case "":
		i.match = matchRepoDigestOrExact
	case matchRepoDigestOrExact, matchRepository, matchExact:
	case exactRepository, exactReference:
		if s.ExactRepository == nil || s.ExactRepository.Repository == "" {
			return i, fmt.Errorf("%s needs exactRepository.repository", i.match)
		}
		named, err := reference.ParseNormalizedNamed(s.ExactRepository.Repository)
		if err != nil {
			return i, fmt.Errorf("exactRepository.repository: %q: %w", s.ExactRepository.Repository, err)
		}
		i.exact = named.String()
	case remapIdentity:
		if s.RemapIdentity == nil || s.RemapIdentity.Prefix == "" || s.RemapIdentity.SignedPrefix == "" {
			return i, fmt.Errorf("RemapIdentity needs remapIdentity.prefix and remapIdentity.signedPrefix")
		}
		i.prefix, i.signedPrefix = s.RemapIdentity.Prefix, s.RemapIdentity.SignedPrefix
	default:
		return i, fmt.Errorf("matchPolicy %q is not valid: want MatchRepoDigestOrExact, MatchRepository, MatchExact, ExactRepository, ExactReference or RemapIdentity", s.MatchPolicy)
	}
	return i, nil
}

// check reports a reference that does not match the image's name where c covers it. A
// signature of a format without references has nothing to match.
func (i identity) check(claimed *payload, c applicable) *failure {
	if !claimed.hasReference {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(claimed.reference)
	if err != nil || !i.matches(named, c) {
		return &failure{signatures.ReasonIdentityMismatch, "the signature is for another repository"}
	}
	return nil
}

func (i identity) matches(signed reference.Named, c applicable) bool {
	names := make([]string, 0, len(c.hosts))
	for _, host := range c.hosts {
		names = append(names, host+"/"+c.repository)
	}
	repository := reference.TrimNamed(signed).String()
	switch i.match {
	case matchExact:
		tagged, ok := signed.(reference.Tagged)
		return ok && slices.Contains(names, repository) && slices.Contains(c.tags, tagged.Tag())
	case exactRepository:
		return repository == i.exact
	case exactReference:
		return signed.String() == i.exact
	case remapIdentity:
		for n, name := range names {
			if rest, ok := strings.CutPrefix(name, i.prefix); ok && (rest == "" || rest[0] == '/') {
				names[n] = i.signedPrefix + rest
			}
		}
	}
	return slices.Contains(names, repository)
}
