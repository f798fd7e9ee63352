// Package referrers keeps the references of manifests to others: by a subject, and by a tag with
// a digest in its name. Repositories refer independently of each other. The package keeps
// records; package catalog keeps Images in step with them.
package referrers

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/storage"
)

// Bounds of one referrer.
const (
	// MaxAnnotationBytes is the size of the annotations that a descriptor keeps. Others are left
	// out, the last ones by name first. The manifest itself has them all.
	MaxAnnotationBytes = 64 << 10
	// MaxListed is the number of manifests that an index of the referrers tag schema lists.
	MaxListed = 1000
)

// Sections of a referrer besides the body, for readers that need one of them. In former versions
// the body had all.
const (
	sectionAnnotations = "annotations" // of the descriptor
	sectionSignatures  = "signatures"
	sectionManifests   = "manifests"
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

func (r *Referrer) key() string {
	if r.Tag != "" {
		return referrerKey(r.Subject, r.Repository) + ":" + r.Tag
	}
	return referrerKey(r.Subject, r.Repository) + "@" + r.Descriptor.Digest.String()
}

func referrerKey(subject digest.Digest, repository string) string {
	return Prefix + subject.String() + "/" + repository
}

// encode returns the value of a referrer. The sections that it does not have are named to be
// removed.
func (r *Referrer) encode() (storage.Value, error) {
	annotations := boundAnnotations(r.Descriptor.Annotations, MaxAnnotationBytes)
	body := Referrer{Descriptor: r.Descriptor}
	body.Descriptor.Annotations, body.Descriptor.Data = nil, nil
	value := storage.Value{{Name: storage.SectionBody}, {Name: sectionAnnotations}, {Name: sectionSignatures}, {Name: sectionManifests}}
	for i, part := range []struct {
		content any
		present bool
	}{
		{body, true},
		{annotations, len(annotations) > 0},
		{r.Signatures, len(r.Signatures) > 0},
		{boundManifests(r.Manifests), len(r.Manifests) > 0},
	} {
		if !part.present {
			continue
		}
		var err error
		if value[i].Data, err = json.Marshal(part.content); err != nil {
			return nil, err
		}
	}
	return value, nil
}

// boundAnnotations returns the first annotations by name that have up to most bytes together.
func boundAnnotations(annotations map[string]string, most int) map[string]string {
	kept := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(annotations)) {
		if size := len(name) + len(annotations[name]); size <= most {
			most -= size
			kept[name] = annotations[name]
		}
	}
	return kept
}

// boundManifests returns up to MaxListed of listed, each digest once, sorted by it.
func boundManifests(listed []imagespec.Descriptor) []imagespec.Descriptor {
	sorted := slices.Clone(listed)
	slices.SortStableFunc(sorted, func(a, b imagespec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
	sorted = slices.CompactFunc(sorted, func(a, b imagespec.Descriptor) bool { return a.Digest == b.Digest })
	sorted = sorted[:min(len(sorted), MaxListed)]
	for i := range sorted {
		sorted[i].Annotations = boundAnnotations(sorted[i].Annotations, MaxAnnotationBytes/16)
		sorted[i].Data = nil
	}
	return sorted
}

// parseReferrer is the inverse of key and of encode, for the sections that were read.
func parseReferrer(e *storage.Entry) (*Referrer, error) {
	r := &Referrer{}
	for _, part := range []struct {
		section string
		into    any
	}{
		{storage.SectionBody, r}, {sectionAnnotations, &r.Descriptor.Annotations},
		{sectionSignatures, &r.Signatures}, {sectionManifests, &r.Manifests},
	} {
		if data := e.Value.Section(part.section); data != nil {
			if err := json.Unmarshal(data, part.into); err != nil {
				return nil, fmt.Errorf("%s: %w", e.Key, err)
			}
		}
	}
	subject, rest, _ := strings.Cut(strings.TrimPrefix(e.Key, Prefix), "/")
	r.Subject = digest.Digest(subject)
	var byDigest bool
	if r.Repository, _, byDigest = strings.Cut(rest, "@"); !byDigest {
		r.Repository, r.Tag, _ = strings.Cut(rest, ":")
	}
	return r, nil
}

// Store keeps referrers in a store. It is safe for concurrent use.
type Store struct{ backend storage.Backend }

// NewStore returns a Store on backend.
func NewStore(backend storage.Backend) *Store { return &Store{backend} }

// Set stores a referrer in a repository. changed is false if it was stored already.
func (s *Store) Set(ctx context.Context, r *Referrer) (changed bool, err error) {
	value, err := r.encode()
	if err != nil {
		return false, err
	}
	return s.put(ctx, r.key(), value)
}

// Remove removes the referrer that Set stored under the same subject,
// repository, and tag or digest.
func (s *Store) Remove(ctx context.Context, r *Referrer) (changed bool, err error) {
	return s.put(ctx, r.key(), nil)
}

// put makes key hold value, nothing if it is nil.
func (s *Store) put(ctx context.Context, key string, value storage.Value) (changed bool, err error) {
	current, _, err := storage.GetEntry(ctx, s.backend, key, storage.Read{})
	for err == nil {
		if (current == nil && value == nil) || (current != nil && value != nil && holds(current.Value, value)) {
			return false, s.backend.Confirm(ctx)
		}
		m := storage.Mutation{Operation: storage.Delete, Key: key}
		if value != nil {
			m.Operation, m.Value = storage.Put, value
		}
		if current != nil {
			m.Expect = current.Revision
		}
		var result *storage.CommitResult
		if result, err = s.backend.Commit(ctx, m); err != nil {
			break
		}
		if result.Succeeded {
			return true, nil
		}
		current = result.Current
	}
	return false, fmt.Errorf("store %s: %w", key, err)
}

// holds reports whether current has the sections of value.
func holds(current, value storage.Value) bool {
	return !slices.ContainsFunc(value, func(s storage.Section) bool { return !bytes.Equal(current.Section(s.Name), s.Data) })
}

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
	entry, _, err := storage.GetEntry(ctx, s.backend, r.key(), storage.Read{})
	if err != nil || entry == nil {
		return nil, err
	}
	return parseReferrer(entry)
}

// EachSigning calls fn with the referrers to subject, of all repositories, that carry signatures. They have
// no annotations. One that cannot be read is reported and passed over.
func (s *Store) EachSigning(ctx context.Context, subject digest.Digest, fn func(*Referrer)) error {
	prefix := Prefix + subject.String() + "/"
	request := storage.ScanRequest{From: prefix, To: prefix + "\xff", Read: storage.Read{Sections: []string{storage.SectionBody, sectionSignatures}}}
	return storage.EachPage(ctx, s.backend, request, func(e *storage.Entry) error {
		r, err := parseReferrer(e)
		if err != nil { // which is to keep no image from being recorded
			slog.ErrorContext(ctx, "referrer not readable", "err", err)
			return nil
		}
		if len(r.Signatures) > 0 {
			fn(r)
		}
		return nil
	})
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
