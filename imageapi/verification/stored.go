package verification

import (
	"bytes"
	"slices"
	"strings"
	"time"

	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/derive"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/signatures"
	"tallyman/signatures/policy"
	"tallyman/storage"
)

// stored is the verification of the Image that a write takes the place of.
type stored struct {
	image, before *imagev1.Image // before is nil if there is none
	entries       map[string]*imagev1.ImageSignature
	// kept is set if the write takes no signature away and leaves the manifest's reading as it was.
	// Then trust can only grow, where names stay.
	kept bool
}

func newStored(r *rest.VerifyRequest) *stored {
	s := &stored{image: r.Image, before: r.Before, entries: map[string]*imagev1.ImageSignature{}}
	if s.before == nil {
		return s
	}
	found := map[string]bool{}
	for i := range s.before.Signatures {
		s.entries[s.before.Signatures[i].Name] = &s.before.Signatures[i]
	}
	for i := range s.image.Signatures {
		if old := s.entry(&s.image.Signatures[i]); old != nil {
			found[old.Name] = true
		}
	}
	s.kept = len(found) == len(s.before.Signatures) &&
		s.before.Annotations[derive.AnnotationAmbiguous] == s.image.Annotations[derive.AnnotationAmbiguous]
	return s
}

// entry returns the stored entry of the same signature, nil if there is none.
func (s *stored) entry(signature *imagev1.ImageSignature) *imagev1.ImageSignature {
	old := s.entries[signature.Name]
	if old == nil || old.Type != signature.Type || !bytes.Equal(old.Content, signature.Content) {
		return nil
	}
	return old
}

// policies returns the digest of the policies of the stored verdict, "" if there is none.
func (s *stored) policies() string {
	if s.before == nil {
		return ""
	}
	return s.before.Annotations[rules.AnnotationPolicies]
}

// complete reports whether the stored verdict is that of the Image by the same policies.
func (s *stored) complete(policies string) bool {
	return s.before != nil && s.before.Annotations[rules.AnnotationVerification] == rules.VerificationComplete && s.policies() == policies && s.same()
}

// same reports whether the Image has the stored names, signatures and verdicts, and no others.
func (s *stored) same() bool {
	if !s.kept || len(s.before.Signatures) != len(s.image.Signatures) ||
		!slices.Equal(rules.Repositories(s.before), rules.Repositories(s.image)) || !slices.Equal(rules.Tags(s.before), rules.Tags(s.image)) {
		return false
	}
	for i := range s.image.Signatures {
		signature, old := &s.image.Signatures[i], *s.entry(&s.image.Signatures[i])
		old.UID = signature.UID
		if !rules.EqualSignatures(signature, &old) {
			return false // such as conditions that an administrator writes
		}
	}
	return true
}

// grown reports whether the Image has all the stored names, so that a signature that some name trusts
// is trusted by it still.
func (s *stored) grown() bool {
	return s.before != nil && subset(rules.Repositories(s.before), rules.Repositories(s.image)) && subset(rules.Tags(s.before), rules.Tags(s.image))
}

// again returns the stored verdict.
func (s *stored) again(condition *storage.Mutation) *rest.Verdict {
	return &rest.Verdict{
		Trusted: rules.TrustedRepositories(s.before), Policies: s.policies(), Condition: condition,
		Pending: s.before.Annotations[rules.AnnotationVerification] != rules.VerificationComplete,
	}
}

// carry returns a verdict without a verification: as much of the stored one as is true of the
// Image. The others are pending.
func (s *stored) carry() *rest.Verdict {
	if s.before != nil && s.same() {
		return s.again(nil)
	}
	for i := range s.image.Signatures {
		signature := &s.image.Signatures[i]
		if old := s.entry(signature); old != nil && s.kept && s.grown() {
			copyVerdict(signature, old)
		} else if signatures.Known(signature.Type) {
			policy.SetPending(signature, time.Now())
		}
	}
	return &rest.Verdict{Trusted: s.stillTrusted(), Policies: s.policies(), Pending: true}
}

// addTo adds to a verdict that is not complete, by the policies of the stored one, the part of
// that which is true of the Image all the same.
func (s *stored) addTo(trusted []string) []string {
	for i := range s.image.Signatures {
		signature := &s.image.Signatures[i]
		c := signatures.Condition(signature, signatures.ConditionTrusted)
		if old := s.entry(signature); old != nil && s.grown() && c != nil && c.Reason == signatures.ReasonPending {
			copyVerdict(signature, old)
		}
	}
	all := slices.Concat(trusted, s.stillTrusted())
	slices.Sort(all)
	return slices.Compact(all)
}

// stillTrusted returns the repositories that the stored verdict trusts, as far as they have the
// Image under the same names.
func (s *stored) stillTrusted() (trusted []string) {
	if !s.kept {
		return nil
	}
	before, now := tagsByRepository(s.before), tagsByRepository(s.image)
	for _, repository := range rules.TrustedRepositories(s.before) {
		if tags, held := now[repository]; held && slices.Equal(tags, before[repository]) {
			trusted = append(trusted, repository)
		}
	}
	return trusted
}

// tagsByRepository returns the tags of each repository that holds the image.
func tagsByRepository(image *imagev1.Image) map[string][]string {
	all := map[string][]string{}
	for _, repository := range rules.Repositories(image) {
		all[repository] = nil
	}
	for _, full := range rules.Tags(image) {
		if at := strings.LastIndexByte(full, ':'); at >= 0 {
			all[full[:at]] = append(all[full[:at]], full[at+1:])
		}
	}
	return all
}

// subset reports whether all of part, sorted, are in whole, sorted.
func subset(part, whole []string) bool {
	for _, p := range part {
		if _, found := slices.BinarySearch(whole, p); !found {
			return false
		}
	}
	return true
}
