// Package referrers keeps the references of manifests to others: by a subject, and by a tag with
// a digest in its name. Repositories refer independently of each other. The package keeps
// records; package catalog keeps Images in step with them.
package referrers

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/storage"
)

// Prefix starts the keys of referrers in the store:
// /referrers/<subject>/<repository>@<digest>, or …:<tag> for a tag. They are no objects of the
// API: their signatures are on the subject's Image.
const Prefix = "/referrers/"

// Referrer is a reference from a repository to another manifest, its subject: a manifest with
// a subject, or the target of a tag by that convention.
type Referrer struct {
	Subject    digest.Digest `json:"-"`
	Repository string        `json:"-"`
	// Tag is set if the connection is a tag's: cosign's sha256-<hex>.sig, or
	// sha256-<hex> of the referrers tag schema.
	Tag string `json:"-"`
	// Descriptor is that of the manifest, with artifactType and annotations as the
	// referrers API gives them. At most MaxAnnotationBytes of annotations are stored.
	Descriptor imagespec.Descriptor `json:"descriptor"`
	// Signatures are those that the manifest carries.
	Signatures []signatures.Signature `json:"signatures,omitempty"`
	// Manifests is the index that a tag of the referrers tag schema points to. At most
	// MaxListed of them are stored, each digest once, in the order of digests.
	Manifests []imagespec.Descriptor `json:"manifests,omitempty"`
}

// Signs reports whether the referrer may have signatures. An index under a tag of the
// referrers tag schema has none.
func (r *Referrer) Signs() bool {
	if r.Tag != "" {
		_, ok := signatures.SignatureTag(r.Tag)
		return ok
	}
	return true
}

// Carries reports whether the referrer carries a signature.
func (r *Referrer) Carries(kind string, content []byte) bool {
	return slices.ContainsFunc(r.Signatures, func(s signatures.Signature) bool { return s.Type == kind && bytes.Equal(s.Content, content) })
}

func referrerKey(subject digest.Digest, repository string) string {
	return Prefix + subject.String() + "/" + repository
}

// Store keeps referrers in a store. It is safe for concurrent use.
type Store struct{ backend storage.Backend }

// NewStore returns a Store on backend.
func NewStore(backend storage.Backend) *Store { return &Store{backend} }

// List returns, in the order of their digests, up to limit manifests of a repository that
// refer to subject, from the one after the digest after; more is set if there are others.
// Referrers by tag are not among them. They have no Signatures and no Manifests.
func (s *Store) List(ctx context.Context, subject digest.Digest, repository string, after digest.Digest, limit int) (page []Referrer, more bool, err error) {
	from := referrerKey(subject, repository) + "@"
	result, err := s.backend.Scan(ctx, storage.ScanRequest{
		From: following(from, after.String()), To: from + "\xff", Limit: limit, Read: storage.Read{Sections: []string{storage.SectionBody, sectionAnnotations}},
	})
	if err != nil {
		return nil, false, err
	}
	page, err = parseReferrers(result)
	return page, result.More, err
}

// following returns the key to go on from, after the last one.
func following(prefix, last string) string {
	if last == "" {
		return prefix
	}
	return prefix + last + "\x00"
}

// Get returns the stored referrer with the subject, repository and tag or digest of r,
// nil if there is none.
func (s *Store) Get(ctx context.Context, r *Referrer) (*Referrer, error) {
	entry, _, err := storage.GetEntry(ctx, s.backend, r.Key(), storage.Read{})
	if err != nil || entry == nil {
		return nil, err
	}
	return parseReferrer(entry)
}

// Share bounds the signatures that each repository has among those of one subject.
type Share struct{ Count, Bytes int }

// SubjectRange returns the range of keys of the referrers to subject: from is the first that there can be, to
// the first behind them.
func SubjectRange(subject digest.Digest) (from, to string) {
	return Prefix + subject.String() + "/", Prefix + subject.String() + "0"
}

// EachSigning calls fn with the referrers to subject, of all repositories, that carry signatures,
// until a repository has used up its share: one with many costs no more to read than one with a
// few. They have no annotations. One that cannot be read is reported and passed over.
func (s *Store) EachSigning(ctx context.Context, subject digest.Digest, share Share, fn func(*Referrer)) error {
	prefix := Prefix + subject.String() + "/"
	request := storage.ScanRequest{
		From: prefix, To: prefix + "\xff", Limit: signingPage, Read: storage.Read{Sections: []string{storage.SectionBody, sectionSignatures}},
	}
	used := map[string]Share{} // by repository
	for more := true; more; {
		result, err := s.backend.Scan(ctx, request)
		if err != nil {
			return err
		}
		more = result.More
		for i := range result.Entries {
			e := &result.Entries[i]
			request.From = e.Key + "\x00"
			r, err := parseReferrer(e)
			if err != nil { // which is to keep no image from being recorded
				slog.ErrorContext(ctx, "referrer not readable", "err", err)
				continue
			}
			of := used[r.Repository]
			if of.Count >= share.Count || of.Bytes >= share.Bytes {
				request.From, more = afterAll(r), true
				break
			}
			if len(r.Signatures) > 0 {
				fn(r)
			}
			for _, signature := range r.Signatures {
				of.Count, of.Bytes = of.Count+1, of.Bytes+len(signature.Content)
			}
			used[r.Repository] = of
		}
	}
	return nil
}

// signingPage is the number of referrers that EachSigning reads at once.
const signingPage = 64

// afterAll returns the first key after those of the repository's referrers, by tag or by digest as r
// is.
func afterAll(r *Referrer) string {
	key := referrerKey(r.Subject, r.Repository)
	if r.Tag != "" {
		return key + ";" // which follows the colon
	}
	return key + "A" // which follows the at sign
}

// SigningIn returns the referrers of a repository to subject that carry signatures, as of a revision of
// the store, 0 for the current one. They have no annotations. One that cannot be read is left out.
func (s *Store) SigningIn(ctx context.Context, subject digest.Digest, repository string, revision int64) (signing []Referrer, err error) {
	key := referrerKey(subject, repository)
	for _, kind := range []string{":", "@"} { // by tag, by digest
		request := storage.ScanRequest{
			From: key + kind, To: key + kind + "\xff", Limit: signingPage, Revision: revision,
			Read: storage.Read{Sections: []string{storage.SectionBody, sectionSignatures}},
		}
		err = storage.EachOf(ctx, s.backend, request, func(e *storage.Entry) error {
			if r, err := parseReferrer(e); err == nil && len(r.Signatures) > 0 {
				signing = append(signing, *r)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return signing, nil
}

// EachSubject calls fn with every digest that a referrer is about, once. It ends with the
// first error of fn.
func (s *Store) EachSubject(ctx context.Context, fn func(digest.Digest) error) error {
	var last digest.Digest
	return storage.Each(ctx, s.backend, Prefix, true, func(e *storage.Entry) error {
		text, _, _ := strings.Cut(strings.TrimPrefix(e.Key, Prefix), "/")
		if subject := digest.Digest(text); subject != last {
			last = subject
			return fn(subject)
		}
		return nil
	})
}

// SubjectOf returns the subject of a manifest of a repository, "" if it is not recorded. It goes
// over all keys, for a caller that cannot read the manifest.
func (s *Store) SubjectOf(ctx context.Context, repository string, name digest.Digest) (subject digest.Digest, err error) {
	err = storage.Each(ctx, s.backend, Prefix, true, func(e *storage.Entry) error {
		text, rest, _ := strings.Cut(strings.TrimPrefix(e.Key, Prefix), "/")
		if rest == repository+"@"+name.String() {
			subject = digest.Digest(text)
		}
		return nil
	})
	return subject, err
}

func parseReferrers(result *storage.ScanResult) ([]Referrer, error) {
	referrers := make([]Referrer, 0, len(result.Entries))
	for n := range result.Entries {
		r, err := parseReferrer(&result.Entries[n])
		if err != nil {
			return nil, err
		}
		referrers = append(referrers, *r)
	}
	return referrers, nil
}
