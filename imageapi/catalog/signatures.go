package catalog

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rules"
	"tallyman/signatures"
	"tallyman/storage"
)

// maxSignatureBytes bounds the total size of the derived signatures of an Image.
const maxSignatureBytes = 1 << 20

// candidates is the number of signatures that are verified, to find the best of them, as a multiple
// of those that an Image can have.
const candidates = 2

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

// EachSigned calls fn with every Image that has signatures and, with subjects, with all digests to
// which something in a repository refers: Images may lack signatures that are there. It ends with
// the first error of fn.
func (c *Catalog) EachSigned(ctx context.Context, subjects bool, fn func(digest.Digest) error) error {
	err := c.images.EachSigned(ctx, func(name string) error { return fn(digest.Digest(name)) })
	if err == nil && subjects {
		err = c.referrers.EachSubject(ctx, fn)
	}
	return err
}

// EachPending calls fn with every Image whose signatures are not all verified. It fails with
// storage.ErrNoIndex while the index of Images cannot answer, and ends with the first error of fn.
func (c *Catalog) EachPending(ctx context.Context, fn func(digest.Digest) error) error {
	return c.images.EachPending(ctx, func(name string) error { return fn(digest.Digest(name)) })
}

// found is a signature that the registry holds.
type found struct {
	signatures.Signature
	name string
}

// mergeSignatures makes the image's derived entries those of the signatures that the
// registry holds now, in the order of candidates, and leaves the others alone. There may be more
// than the Image can have: the write takes the best of them. The result does not depend on the
// order in which anything came. That the signatures have not changed until then is a condition of the
// commit. With some, the registry is likely to have some, which are read in any case.
func (c *Catalog) mergeSignatures(ctx context.Context, image *imagev1.Image, some bool) error {
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
	if len(existing) == 0 && !some && expectNoSignatures(ctx, digest.Digest(image.Name)) {
		rules.SetOmitted(image, 0)
		return nil
	}
	all, err := c.findSignatures(ctx, image)
	if err != nil {
		return err
	}
	all = withoutPosted(all, image, merged)
	fitting := c.fitting(all)
	rules.SetOmitted(image, len(all)-fitting)
	for _, f := range all[:fitting] {
		if s := existing[f.name]; s != nil {
			merged = append(merged, *s)
			continue
		}
		s := imagev1.ImageSignature{Type: f.Type, Content: f.Content}
		s.Name = f.name
		merged = append(merged, s)
	}
	image.Signatures = merged
	return nil
}

type withoutSignaturesKey struct{}

// withoutSignatures returns a context in whose Batch an Image without signatures is expected to stay
// one: that nothing refers to it is a condition of the commit, instead of a read before.
func withoutSignatures(ctx context.Context) context.Context {
	return context.WithValue(ctx, withoutSignaturesKey{}, true)
}

// expectNoSignatures adds that condition, if ctx says so.
func expectNoSignatures(ctx context.Context, subject digest.Digest) bool {
	if ctx.Value(withoutSignaturesKey{}) == nil || subject.Validate() != nil {
		return false
	}
	from, to := referrers.SubjectRange(subject)
	storage.BatchOf(ctx).Add(storage.Mutation{Operation: storage.CheckEmpty, From: from, To: to})
	return true
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

// findSignatures returns the signatures of image that repositories hold, each once: first those in
// repositories of the image itself, as others may be anybody's. Of several repositories each has
// its turn, so that one with many signatures displaces none of another.
func (c *Catalog) findSignatures(ctx context.Context, image *imagev1.Image) ([]found, error) {
	subject, repositories := digest.Digest(image.Name), rules.Repositories(image)
	if subject.Validate() != nil {
		return nil, nil
	}
	stamp, err := c.referrers.Stamp(ctx, subject) // before the signatures are read
	if err != nil {
		return nil, err
	}
	storage.BatchOf(ctx).Add(storage.Mutation{Operation: storage.Check, Key: referrers.StampKey(subject), Expect: stamp})
	signing, err := c.signing(ctx, subject)
	if err != nil {
		return nil, err
	}
	own, others := map[string][]found{}, map[string][]found{}
	for _, r := range signing {
		into := others
		if slices.Contains(repositories, r.Repository) {
			into = own
		} else if c.signatures.OwnRepositoriesOnly {
			continue
		}
		for _, s := range r.Signatures {
			into[r.Repository] = append(into[r.Repository], found{s, signatures.Name(subject, s)})
		}
	}
	known := map[string]bool{}
	return append(inTurn(own, known), inTurn(others, known)...), nil
}

// inTurn returns the signatures that are not known yet: the first of each repository, then the
// second, and so on.
func inTurn(byRepository map[string][]found, known map[string]bool) (all []found) {
	repositories := slices.Sorted(maps.Keys(byRepository))
	for _, list := range byRepository {
		slices.SortFunc(list, func(a, b found) int { return strings.Compare(a.name, b.name) })
	}
	for n, more := 0, true; more; n++ {
		more = false
		for _, repository := range repositories {
			list := byRepository[repository]
			if n >= len(list) {
				continue
			}
			more = true
			if f := list[n]; !known[f.name] {
				known[f.name] = true
				all = append(all, f)
			}
		}
	}
	return all
}

// share is the most that one repository has among the candidates: all of them.
func (c *Catalog) share() referrers.Share {
	return referrers.Share{Count: candidates * c.signatures.Limits.PerImage, Bytes: candidates * maxSignatureBytes}
}

// fitting returns how many of all are candidates.
func (c *Catalog) fitting(all []found) int {
	size := 0
	for n, f := range all {
		if size += len(f.Content); n == candidates*c.signatures.Limits.PerImage || size > candidates*maxSignatureBytes {
			return n
		}
	}
	return len(all)
}
