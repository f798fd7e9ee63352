package records

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/storage"
)

// Holding says that a repository holds a manifest.
type Holding struct {
	// MediaType is that of the manifest, Size its size in bytes.
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
	// Children are the manifests of an index.
	Children []digest.Digest `json:"children,omitempty"`
	// Subject is that of the manifest, which is unknown once the manifest is gone.
	Subject digest.Digest `json:"subject,omitempty"`
	// WithoutImage is set if the manifest is to have no Image, as it is about one, such as a signature.
	WithoutImage bool `json:"withoutImage,omitempty"`
	// Since is the time at which it was recorded, By the client that pushed it.
	Since time.Time `json:"since"`
	By    Pusher    `json:"by,omitzero"`
}

// holdingGroup is the group of terms of Holdings.
const holdingGroup = "holding"

func holdingKey(name digest.Digest, repository string) string {
	return HoldingPrefix + name.String() + "/" + repository
}

// holdingTerms returns the terms of a Holding under key: its repository.
func holdingTerms(key string) []string {
	_, repository, _ := strings.Cut(strings.TrimPrefix(key, HoldingPrefix), "/")
	return []string{"repository=" + repository}
}

// Hold adds to b that a repository holds a manifest. added is false if it did before.
func (s *Store) Hold(ctx context.Context, b *storage.Batch, repository string, name digest.Digest, h Holding) (added bool, err error) {
	key := holdingKey(name, repository)
	entries, err := s.get(ctx, key)
	if err != nil {
		return false, err
	}
	h.Since, h.By = s.options.Now().UTC().Truncate(time.Second), pusherOf(ctx)
	if added = entries[0] == nil; !added {
		before, err := decodeHolding(entries[0])
		if err == nil && before.WithoutImage == h.WithoutImage {
			b.Add(storage.Mutation{Operation: storage.Check, Key: key, Expect: entries[0].Revision})
			return false, nil
		}
		if err == nil {
			h.Since, h.By = before.Since, before.By
		}
	}
	body, err := json.Marshal(h)
	if err != nil {
		return false, err
	}
	b.Add(storage.Mutation{
		Key: key, Expect: revision(entries[0]), Value: storage.Body(body), Terms: []storage.TermChange{{Group: holdingGroup, Terms: holdingTerms(key)}},
	})
	return added, nil
}

func decodeHolding(e *storage.Entry) (*Holding, error) {
	h := &Holding{}
	if e.Err != nil || json.Unmarshal(e.Value.Body(), h) != nil {
		return nil, fmt.Errorf("%s: %w", e.Key, storage.ErrCorrupt)
	}
	return h, nil
}

// Release adds to b that a repository does not hold a manifest any more. held is false if it did
// not before.
func (s *Store) Release(ctx context.Context, b *storage.Batch, repository string, name digest.Digest) (held bool, err error) {
	key := holdingKey(name, repository)
	entries, err := s.get(ctx, key)
	if err != nil || entries[0] == nil {
		return false, err
	}
	b.Add(storage.Mutation{Operation: storage.Delete, Key: key, Expect: entries[0].Revision})
	return true, nil
}

// Holders returns the repositories that hold a manifest, up to limit of them, in order.
func (s *Store) Holders(ctx context.Context, name digest.Digest, limit int) (repositories []string, err error) {
	prefix := HoldingPrefix + name.String() + "/"
	err = storage.Each(ctx, s.options.Backend, prefix, true, func(e *storage.Entry) error {
		repositories = append(repositories, strings.TrimPrefix(e.Key, prefix))
		if len(repositories) == limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return repositories, err
}

// HeldBy returns a repository that holds a manifest by the records in a store, "" if none does, and the
// condition that this is so.
func HeldBy(ctx context.Context, b storage.Backend, name digest.Digest) (repository string, condition storage.Mutation, err error) {
	prefix := HoldingPrefix + name.String() + "/"
	condition = storage.Mutation{Operation: storage.CheckEmpty, From: prefix, To: HoldingPrefix + name.String() + "0"}
	page, err := b.Scan(ctx, storage.ScanRequest{From: condition.From, To: condition.To, Limit: 1, KeysOnly: true})
	if err != nil || len(page.Entries) == 0 {
		return "", condition, err
	}
	held := page.Entries[0]
	return strings.TrimPrefix(held.Key, prefix), storage.Mutation{Operation: storage.Check, Key: held.Key, Expect: held.Revision}, nil
}

var errEnough = errors.New("enough")

// Holding returns the record that a repository holds a manifest, nil if there is none.
func (s *Store) Holding(ctx context.Context, repository string, name digest.Digest) (*Holding, error) {
	key := holdingKey(name, repository)
	entry, _, err := storage.GetEntry(ctx, s.options.Backend, key, storage.Read{})
	if err != nil || entry == nil {
		return nil, err
	}
	return decodeHolding(entry)
}

// HeldManifests returns the manifests that a repository holds whose digests begin with prefix, up to limit
// of them, or all if that is 0, in order.
func (s *Store) HeldManifests(ctx context.Context, repository, prefix string, limit int) (names []digest.Digest, err error) {
	err = s.eachHolding(ctx, repository, prefix, func(name digest.Digest, _ int64) error {
		if names = append(names, name); len(names) == limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return names, err
}

// EachHolding calls fn with every manifest that a repository holds by its records, and the revision of
// the record.
func (s *Store) EachHolding(ctx context.Context, repository string, fn func(name digest.Digest, revision int64) error) error {
	return s.eachHolding(ctx, repository, "", fn)
}

func (s *Store) eachHolding(ctx context.Context, repository, prefix string, fn func(name digest.Digest, revision int64) error) error {
	is := func(e *storage.Entry) bool { return strings.HasSuffix(e.Key, "/"+repository) }
	return s.each(ctx, HoldingPrefix+prefix, "repository="+repository, is, func(e *storage.Entry) error {
		name, holder, _ := strings.Cut(strings.TrimPrefix(e.Key, HoldingPrefix), "/")
		if holder != repository {
			return nil
		}
		return fn(digest.Digest(name), e.Revision)
	})
}
