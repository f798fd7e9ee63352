package referrers

import (
	"bytes"
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"tallyman/storage"
)

// stampPrefix starts the keys of stamps: /signing/<subject>. The revision of a stamp is that of the
// last change of a referrer that may carry signatures of the subject. A stamp stays for ever, as a
// reader takes one that is not there for one that never was.
const stampPrefix = "/signing/"

// StampKey returns the key of the stamp of a subject.
func StampKey(subject digest.Digest) string { return stampPrefix + subject.String() }

// Stamp returns the revision of a subject's stamp, 0 if there is none. Signatures that are read
// afterwards are those of a commit in which the stamp has that revision still.
func (s *Store) Stamp(ctx context.Context, subject digest.Digest) (revision int64, err error) {
	entry, err := s.entry(ctx, StampKey(subject))
	if err != nil || entry == nil {
		return 0, err
	}
	return entry.Revision, nil
}

// entry returns the entry under a key, that of storage.WithPrefetched if it is there.
func (s *Store) entry(ctx context.Context, key string) (*storage.Entry, error) {
	if entry, known := storage.Prefetched(ctx, key); known {
		return entry, nil
	}
	entry, _, err := storage.GetEntry(ctx, s.backend, key, storage.Read{})
	return entry, err
}

// Key returns the key under which r is stored.
func (r *Referrer) Key() string {
	if r.Tag != "" {
		return referrerKey(r.Subject, r.Repository) + ":" + r.Tag
	}
	return referrerKey(r.Subject, r.Repository) + "@" + r.Descriptor.Digest.String()
}

// Add adds to b that r is stored.
func (s *Store) Add(ctx context.Context, b *storage.Batch, r *Referrer) error {
	value, err := r.encode()
	if err != nil {
		return err
	}
	return s.put(ctx, b, r, value)
}

// Remove adds to b that a referrer with the subject, repository, and tag or digest of r is not stored.
func (s *Store) Remove(ctx context.Context, b *storage.Batch, r *Referrer) error {
	return s.put(ctx, b, r, nil)
}

// put makes the key of r hold value, nothing if it is nil.
func (s *Store) put(ctx context.Context, b *storage.Batch, r *Referrer, value storage.Value) error {
	key := r.Key()
	current, err := s.entry(ctx, key)
	if err != nil {
		return err
	}
	m := storage.Mutation{Operation: storage.Delete, Key: key}
	if current != nil {
		m.Expect = current.Revision
	}
	switch {
	case value == nil && current == nil, value != nil && current != nil && holds(current.Value, value):
		m.Operation = storage.Check // as it is so already
	case value != nil:
		m.Operation, m.Value = storage.Put, value
	}
	b.Add(m)
	if stamp := StampKey(r.Subject); m.Changes() && r.Signs() && !b.Changes(stamp) {
		b.Add(storage.Mutation{Key: stamp, Expect: storage.AnyRevision, Value: storage.Body([]byte("{}"))})
	}
	return nil
}

// holds reports whether current has the sections of value.
func holds(current, value storage.Value) bool {
	return !slices.ContainsFunc(value, func(s storage.Section) bool { return !bytes.Equal(current.Section(s.Name), s.Data) })
}
