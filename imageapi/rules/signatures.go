package rules

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/uuid"

	"tallyman/signatures"
)

// IsDerived reports whether an entry of image is derived from the registry. Its name is
// derived from its content, and it has no uid, unlike an entry that a client has posted.
func IsDerived(image *imagev1.Image, s *imagev1.ImageSignature) bool {
	full := signatures.FullName(digest.Digest(image.Name), signatures.Signature{Type: s.Type, Content: s.Content})
	return s.UID == "" && (s.Name == full || s.Name == full[:len(full)-32])
}

// EqualSignatures reports whether two signatures are the same. Contents may have 1 MiB, which
// reflection compares byte by byte.
func EqualSignatures(a, b *imagev1.ImageSignature) bool {
	if !bytes.Equal(a.Content, b.Content) {
		return false
	}
	x, y := *a, *b
	x.Content, y.Content = nil, nil
	return equality.Semantic.DeepEqual(x, y)
}

// KeepConditions gives the signatures that a client has sent without conditions those
// that verification wrote before, as a client that applies a manifest leaves them out.
// So a verification with the same outcome keeps their times, and changes nothing.
func KeepConditions(image, before *imagev1.Image) {
	known := map[string]*imagev1.ImageSignature{}
	for i := range before.Signatures {
		known[before.Signatures[i].Name] = &before.Signatures[i]
	}
	for i := range image.Signatures {
		s := &image.Signatures[i]
		old := known[s.Name]
		if old == nil || len(s.Conditions) > 0 || s.Type != old.Type || !bytes.Equal(s.Content, old.Content) {
			continue
		}
		for _, c := range old.Conditions {
			if signatures.IsReason(c.Reason) {
				s.Conditions = append(s.Conditions, c)
			}
		}
	}
}

// RestoreSignatures lets a client change the signatures that clients have posted, and restores
// the derived ones. An entry that the client adds is a posted one from then on.
func RestoreSignatures(image, before *imagev1.Image) {
	var derived []imagev1.ImageSignature
	names := map[string]bool{}
	for i := range before.Signatures {
		if s := &before.Signatures[i]; IsDerived(before, s) {
			derived, names[s.Name] = append(derived, *s), true
		}
	}
	var kept []imagev1.ImageSignature
	for i := range image.Signatures {
		s := &image.Signatures[i]
		// `oc adm verify-image-signature --save` empties the entries that are not
		// signed with GPG.
		emptied := s.Name == "" && s.Type == "" && len(s.Content) == 0 && i < len(before.Signatures) && IsDerived(before, &before.Signatures[i])
		if !emptied && !names[s.Name] {
			kept = append(kept, *s)
		}
	}
	image.Signatures = slices.Concat(kept, derived)
	OwnSignatures(image, names)
}

// MergeSignatures adds the signatures of before that image lacks, by name. They come first. A
// signature of image that has no type or content keeps that of before.
func MergeSignatures(image, before *imagev1.Image) {
	given := map[string]*imagev1.ImageSignature{}
	for i := range image.Signatures {
		given[image.Signatures[i].Name] = &image.Signatures[i]
	}
	var missing []imagev1.ImageSignature
	for i := range before.Signatures {
		old := &before.Signatures[i]
		s := given[old.Name]
		if s == nil {
			missing = append(missing, *old)
			continue
		}
		s.Type = cmp.Or(s.Type, old.Type)
		if len(s.Content) == 0 {
			s.Content = old.Content
		}
	}
	image.Signatures = append(missing, image.Signatures...)
}

// SignatureRepositories returns the repositories that a signature was put into, by the registry's
// signature endpoint: the annotation AnnotationRepositories of the entry. One without any belongs
// to the Image.
func SignatureRepositories(s *imagev1.ImageSignature) []string {
	return split(s.Annotations[AnnotationRepositories])
}

// AddSignatureRepository notes that a signature was put into repository, too.
func AddSignatureRepository(s *imagev1.ImageSignature, repository string) {
	setSignatureRepositories(s, append(SignatureRepositories(s), repository))
}

func setSignatureRepositories(s *imagev1.ImageSignature, repositories []string) {
	s.Annotations = nil // it has no others
	if len(repositories) > 0 {
		slices.Sort(repositories)
		s.Annotations = map[string]string{AnnotationRepositories: strings.Join(slices.Compact(repositories), ",")}
	}
}

// removeSignatures removes the signatures that were put into repository and into no other.
func removeSignatures(image *imagev1.Image, repository string) {
	image.Signatures = slices.DeleteFunc(image.Signatures, func(s imagev1.ImageSignature) bool {
		all := SignatureRepositories(&s)
		return len(all) == 1 && all[0] == repository
	})
	for i := range image.Signatures {
		s := &image.Signatures[i]
		if all := SignatureRepositories(s); slices.Contains(all, repository) {
			setSignatureRepositories(s, slices.DeleteFunc(all, func(r string) bool { return r == repository }))
		}
	}
}

// RestoreSignatureRepositories reverts what a client says of the repositories of signatures. before
// is nil for a new image.
func RestoreSignatureRepositories(image, before *imagev1.Image) {
	repositories := map[string][]string{}
	if before != nil {
		for i := range before.Signatures {
			repositories[before.Signatures[i].Name] = SignatureRepositories(&before.Signatures[i])
		}
	}
	for i := range image.Signatures {
		s := &image.Signatures[i]
		delete(s.Annotations, AnnotationRepositories)
		if all := repositories[s.Name]; len(all) > 0 {
			setSignatureRepositories(s, all)
		}
	}
}

// OwnSignatures marks the entries that a client has written, but for those whose
// names are in derived.
func OwnSignatures(image *imagev1.Image, derived map[string]bool) {
	for i := range image.Signatures {
		if s := &image.Signatures[i]; s.UID == "" && !derived[s.Name] && IsDerived(image, s) {
			s.UID = uuid.NewUUID()
		}
	}
}
