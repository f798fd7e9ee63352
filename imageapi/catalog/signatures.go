package catalog

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rules"
	"tallyman/signatures"
)

// maxSignatureBytes bounds the total size of the derived signatures of an Image.
const maxSignatureBytes = 1 << 20

// SignatureOptions says which signatures get onto Images.
type SignatureOptions struct {
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

// found is a signature that the registry holds.
type found struct {
	signatures.Signature
	name string
	own  bool // a repository that holds the image has it
}

// mergeSignatures makes the image's derived entries those of the signatures that the
// registry holds now, and leaves the others alone. The result does not depend on the
// order in which anything came.
func (c *Catalog) mergeSignatures(ctx context.Context, image *imagev1.Image) (changed bool, err error) {
	all, err := c.findSignatures(ctx, image)
	if err != nil {
		return false, err
	}
	existing := map[string]*imagev1.ImageSignature{}
	var merged []imagev1.ImageSignature
	for n := range image.Signatures {
		s := &image.Signatures[n]
		if rules.IsDerived(image, s) {
			existing[s.Name] = s
		} else {
			merged = append(merged, *s)
		}
	}
	posted := len(merged)
	all = withoutPosted(all, image, merged)
	fitting := c.fitting(all)
	c.noteOmitted(image, len(all)-fitting)
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

// withoutPosted leaves out the signatures that clients have posted, too. A posted entry with other
// content does not displace one of the registry: that gets a longer name.
func withoutPosted(all []found, image *imagev1.Image, posted []imagev1.ImageSignature) []found {
	names := map[string]bool{}
	for i := range posted {
		names[posted[i].Name] = true
	}
	all = slices.DeleteFunc(all, func(f found) bool {
		return slices.ContainsFunc(posted, func(s imagev1.ImageSignature) bool { return s.Type == f.Type && bytes.Equal(s.Content, f.Content) })
	})
	for i := range all {
		if names[all[i].name] {
			all[i].name = signatures.FullName(digest.Digest(image.Name), all[i].Signature)
		}
	}
	return all
}

// findSignatures returns the signatures of image that repositories hold, each once:
// first those in repositories of the image itself, as others may be anybody's.
func (c *Catalog) findSignatures(ctx context.Context, image *imagev1.Image) ([]found, error) {
	subject, repositories := digest.Digest(image.Name), rules.Repositories(image)
	if subject.Validate() != nil {
		return nil, nil
	}
	byName := map[string]found{}
	err := c.referrers.EachSigning(ctx, subject, func(r *referrers.Referrer) {
		own := slices.Contains(repositories, r.Repository)
		if !own && c.signatures.OwnRepositoriesOnly {
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
func (c *Catalog) fitting(all []found) int {
	size := 0
	for n, f := range all {
		if size += len(f.Content); n == c.signatures.Limits.PerImage || size > maxSignatureBytes {
			return n
		}
	}
	return len(all)
}

func (c *Catalog) noteOmitted(image *imagev1.Image, omitted int) {
	if omitted == 0 {
		delete(image.Annotations, rules.AnnotationSignaturesOmitted)
		return
	}
	if image.Annotations == nil {
		image.Annotations = map[string]string{}
	}
	image.Annotations[rules.AnnotationSignaturesOmitted] = strconv.Itoa(omitted)
}
