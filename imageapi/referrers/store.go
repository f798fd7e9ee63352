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
	// referrers API gives them.
	Descriptor imagespec.Descriptor `json:"descriptor"`
	// Signatures are those that the manifest carries.
	Signatures []signatures.Signature `json:"signatures,omitempty"`
	// Manifests is the index that a tag of the referrers tag schema points to.
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

// parseReferrer is the inverse of key and of encoding.
func parseReferrer(e *storage.Entry) (*Referrer, error) {
	r := &Referrer{}
	if err := json.Unmarshal(e.Value.Body(), r); err != nil {
		return nil, fmt.Errorf("%s: %w", e.Key, err)
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
	value, err := json.Marshal(r)
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
func (s *Store) put(ctx context.Context, key string, value []byte) (changed bool, err error) {
	current, _, err := storage.GetEntry(ctx, s.backend, key, storage.Read{})
	for err == nil {
		if (current == nil && value == nil) || (current != nil && value != nil && bytes.Equal(current.Value.Body(), value)) {
			return false, s.backend.Confirm(ctx)
		}
		m := storage.Mutation{Operation: storage.Delete, Key: key}
		if value != nil {
			m.Operation, m.Value = storage.Put, storage.Body(value)
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

// List returns, in the order of their digests, up to limit manifests of a repository that
// refer to subject, from the one after the digest after; more is set if there are others.
// Referrers by tag are not among them.
func (s *Store) List(ctx context.Context, subject digest.Digest, repository string, after digest.Digest, limit int) (page []Referrer, more bool, err error) {
	from := referrerKey(subject, repository) + "@"
	result, err := s.backend.Scan(ctx, storage.ScanRequest{From: following(from, after.String()), To: from + "\xff", Limit: limit})
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

// Each calls fn with all that any repository holds about subject. One that
// cannot be read is reported and passed over.
func (s *Store) Each(ctx context.Context, subject digest.Digest, fn func(*Referrer)) error {
	return storage.Each(ctx, s.backend, Prefix+subject.String()+"/", false, func(e *storage.Entry) error {
		r, err := parseReferrer(e)
		if err != nil { // which is to keep no image from being recorded
			slog.ErrorContext(ctx, "referrer not readable", "err", err)
			return nil
		}
		fn(r)
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
