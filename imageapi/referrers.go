package imageapi

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

// referrerPrefix starts the keys of referrers in the store:
// /referrers/<subject>/<repository>@<digest>, or …:<tag> for a tag. They are no objects of the
// API: their signatures are on the subject's Image.
const referrerPrefix = "/referrers/"

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

func (r *Referrer) key() string {
	if r.Tag != "" {
		return referrerKey(r.Subject, r.Repository) + ":" + r.Tag
	}
	return referrerKey(r.Subject, r.Repository) + "@" + r.Descriptor.Digest.String()
}

func referrerKey(subject digest.Digest, repository string) string {
	return referrerPrefix + subject.String() + "/" + repository
}

// parseReferrer is the inverse of key and of encoding.
func parseReferrer(e *storage.Entry) (*Referrer, error) {
	r := &Referrer{}
	if err := json.Unmarshal(e.Value.Body(), r); err != nil {
		return nil, fmt.Errorf("%s: %w", e.Key, err)
	}
	subject, rest, _ := strings.Cut(strings.TrimPrefix(e.Key, referrerPrefix), "/")
	r.Subject = digest.Digest(subject)
	var byDigest bool
	if r.Repository, _, byDigest = strings.Cut(rest, "@"); !byDigest {
		r.Repository, r.Tag, _ = strings.Cut(rest, ":")
	}
	return r, nil
}

// SetReferrer stores a referrer in a repository. changed is false if it was stored already.
func (w *Writer) SetReferrer(ctx context.Context, r *Referrer) (changed bool, err error) {
	value, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	return w.put(ctx, r.key(), value)
}

// RemoveReferrer removes the referrer that SetReferrer stored under the same subject,
// repository, and tag or digest.
func (w *Writer) RemoveReferrer(ctx context.Context, r *Referrer) (changed bool, err error) {
	return w.put(ctx, r.key(), nil)
}

// put makes key hold value, nothing if it is nil.
func (w *Writer) put(ctx context.Context, key string, value []byte) (changed bool, err error) {
	current, _, err := storage.GetEntry(ctx, w.images.backend, key, storage.Read{})
	for err == nil {
		if (current == nil && value == nil) || (current != nil && value != nil && bytes.Equal(current.Value.Body(), value)) {
			return false, w.images.backend.Confirm(ctx)
		}
		m := storage.Mutation{Operation: storage.Delete, Key: key}
		if value != nil {
			m.Operation, m.Value = storage.Put, storage.Body(value)
		}
		if current != nil {
			m.Expect = current.Revision
		}
		var result *storage.CommitResult
		if result, err = w.images.backend.Commit(ctx, m); err != nil {
			break
		}
		if result.Succeeded {
			return true, nil
		}
		current = result.Current
	}
	return false, fmt.Errorf("store %s: %w", key, err)
}

// Referrers returns, in the order of their digests, up to limit manifests of a repository that
// refer to subject, from the one after the digest after; more is set if there are others.
// Referrers by tag are not among them.
func (w *Writer) Referrers(ctx context.Context, subject digest.Digest, repository string, after digest.Digest, limit int) (page []Referrer, more bool, err error) {
	from := referrerKey(subject, repository) + "@"
	result, err := w.images.backend.Scan(ctx, storage.ScanRequest{From: following(from, after.String()), To: from + "\xff", Limit: limit})
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

// Referrer returns the stored referrer with the subject, repository and tag or digest of r,
// nil if there is none.
func (w *Writer) Referrer(ctx context.Context, r *Referrer) (*Referrer, error) {
	entry, _, err := storage.GetEntry(ctx, w.images.backend, r.key(), storage.Read{})
	if err != nil || entry == nil {
		return nil, err
	}
	return parseReferrer(entry)
}

// eachReferrer calls fn with all that any repository holds about subject. One that
// cannot be read is reported and passed over.
func (i *images) eachReferrer(ctx context.Context, subject digest.Digest, fn func(*Referrer)) error {
	return eachEntry(ctx, i.backend, referrerPrefix+subject.String()+"/", false, func(e *storage.Entry) error {
		r, err := parseReferrer(e)
		if err != nil { // which is to keep no image from being recorded
			slog.ErrorContext(ctx, "referrer not readable", "err", err)
			return nil
		}
		fn(r)
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
