package imageapi

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"tallyman/signatures"
)

// maxSignatureBytes bounds the total size of the derived signatures of an Image.
const maxSignatureBytes = 1 << 20

// Verifier verifies the signatures of an Image. policy.Verifier is one.
type Verifier interface {
	// Verify writes the results of verification on the image's signatures, and returns the
	// repositories whose policy is satisfied. repositories hold the image; tags
	// (repository:tag) point to it.
	Verify(image *imagev1.Image, repositories, tags []string) (trusted []string)
}

// SignatureOptions says how signatures get onto Images.
type SignatureOptions struct {
	// Verifier verifies them; nil leaves them as they are.
	Verifier Verifier
	// Limits bounds the derived signatures of an Image; zero values mean the defaults.
	Limits signatures.Limits
	// OwnRepositoriesOnly leaves out signatures in repositories that do not hold
	// the image.
	OwnRepositoriesOnly bool
}

func (o *SignatureOptions) complete() {
	if o.Limits.Content == 0 {
		o.Limits.Content = signatures.DefaultContentLimit
	}
	if o.Limits.PerImage == 0 {
		o.Limits.PerImage = signatures.DefaultPerImage
	}
}

// isDerived reports whether an entry of image is derived from the registry. Its name is
// derived from its content, and it has no uid, unlike an entry that a client has posted.
func isDerived(image *imagev1.Image, s *imagev1.ImageSignature) bool {
	return s.UID == "" && s.Name == signatures.Name(digest.Digest(image.Name), signatures.Signature{Type: s.Type, Content: s.Content})
}

// found is a signature that the registry holds.
type found struct {
	signatures.Signature
	name string
	own  bool // a repository that holds the image has it
}

// mergeSignatures makes the image's derived entries those of the signatures that the
// registry holds now, and leaves the others alone. The result does not depend on the
// order in which anything came.
func (i *images) mergeSignatures(ctx context.Context, image *imagev1.Image) (changed bool, err error) {
	all, err := i.findSignatures(ctx, image)
	if err != nil {
		return false, err
	}
	existing := map[string]*imagev1.ImageSignature{}
	var merged []imagev1.ImageSignature
	for n := range image.Signatures {
		s := &image.Signatures[n]
		if isDerived(image, s) {
			existing[s.Name] = s
		} else {
			merged = append(merged, *s)
		}
	}
	posted := len(merged)
	all = slices.DeleteFunc(all, func(f found) bool {
		return slices.ContainsFunc(merged, func(s imagev1.ImageSignature) bool {
			return s.Name == f.name || s.Type == f.Type && bytes.Equal(s.Content, f.Content)
		})
	})
	fitting := i.fitting(all)
	i.noteOmitted(image, len(all)-fitting)
	all = all[:fitting]
	slices.SortFunc(all, func(a, b found) int { return strings.Compare(a.name, b.name) })
	for _, f := range all {
		if s := existing[f.name]; s != nil {
			merged = append(merged, *s)
			continue
		}
		changed = true
		s := imagev1.ImageSignature{Type: f.Type, Content: f.Content}
		s.Name = f.name
		merged = append(merged, s)
	}
	changed = changed || len(merged)-posted != len(existing)
	image.Signatures = merged
	return changed, nil
}

// findSignatures returns the signatures of image that repositories hold, each once:
// first those in repositories of the image itself, as others may be anybody's.
func (i *images) findSignatures(ctx context.Context, image *imagev1.Image) ([]found, error) {
	subject, repositories := digest.Digest(image.Name), Repositories(image)
	if subject.Validate() != nil {
		return nil, nil
	}
	byName := map[string]found{}
	err := i.eachReferrer(ctx, subject, func(r *Referrer) {
		own := slices.Contains(repositories, r.Repository)
		if !own && i.signatures.OwnRepositoriesOnly {
			return
		}
		for _, s := range r.Signatures {
			f := found{s, signatures.Name(subject, s), own}
			f.own = f.own || byName[f.name].own
			byName[f.name] = f
		}
	})
	if err != nil {
		return nil, err
	}
	all := make([]found, 0, len(byName))
	for _, f := range byName {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b found) int {
		if a.own != b.own {
			if a.own {
				return -1
			}
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	return all, nil
}

// fitting returns how many of all an Image can have.
func (i *images) fitting(all []found) int {
	size := 0
	for n, f := range all {
		if size += len(f.Content); n == i.signatures.Limits.PerImage || size > maxSignatureBytes {
			return n
		}
	}
	return len(all)
}

func (i *images) noteOmitted(image *imagev1.Image, omitted int) {
	if omitted == 0 {
		delete(image.Annotations, AnnotationSignaturesOmitted)
		return
	}
	if image.Annotations == nil {
		image.Annotations = map[string]string{}
	}
	image.Annotations[AnnotationSignaturesOmitted] = strconv.Itoa(omitted)
}

// assess has the image's signatures verified. It is part of every write.
func (s imageStrategy) assess(image *imagev1.Image) {
	if s.verifier == nil {
		return
	}
	setList(image, AnnotationTrusted, s.verifier.Verify(image, Repositories(image), Tags(image)))
}

// keepConditions gives the signatures that a client has sent without conditions those
// that verification wrote before, as a client that applies a manifest leaves them out.
// So a verification with the same outcome keeps their times, and changes nothing.
func keepConditions(image, before *imagev1.Image) {
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

// restoreSignatures lets a client change the signatures that clients have posted, and restores
// the derived ones. An entry that the client adds is a posted one from then on.
func restoreSignatures(image, before *imagev1.Image) {
	var derived []imagev1.ImageSignature
	names := map[string]bool{}
	for i := range before.Signatures {
		if s := &before.Signatures[i]; isDerived(before, s) {
			derived, names[s.Name] = append(derived, *s), true
		}
	}
	var kept []imagev1.ImageSignature
	for i := range image.Signatures {
		s := &image.Signatures[i]
		// `oc adm verify-image-signature --save` empties the entries that are not
		// signed with GPG.
		emptied := s.Name == "" && s.Type == "" && len(s.Content) == 0 && i < len(before.Signatures) && isDerived(before, &before.Signatures[i])
		if !emptied && !names[s.Name] {
			kept = append(kept, *s)
		}
	}
	image.Signatures = slices.Concat(kept, derived)
	ownSignatures(image, names)
}

// ownSignatures marks the entries that a client has written, but for those whose
// names are in derived.
func ownSignatures(image *imagev1.Image, derived map[string]bool) {
	for i := range image.Signatures {
		if s := &image.Signatures[i]; s.UID == "" && !derived[s.Name] && isDerived(image, s) {
			s.UID = uuid.NewUUID()
		}
	}
}
