package records

import (
	"context"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/storage"
)

// missingPrefix starts the keys of Missing: the key of the record follows.
const missingPrefix = "/missing"

// Missing is the record of a tag, or else of a manifest, that the registry was found to lack.
type Missing struct {
	Repository string        `json:"repository"`
	Tag        string        `json:"tag,omitempty"`
	Digest     digest.Digest `json:"digest,omitempty"`
	// Revision is that of the record, from before the registry was read.
	Revision int64 `json:"revision"`
	// Since is when it was first found.
	Since time.Time `json:"since"`
}

// recordKey returns the key of the record.
func (s *Store) recordKey(m *Missing) string {
	if m.Tag == "" {
		return holdingKey(m.Digest, m.Repository)
	}
	live, _ := s.tagKeys(m.Repository, m.Tag)
	return live
}

// MarkMissing notes a record that the registry lacks, since now, unless that is noted already of the
// same revision.
func (s *Store) MarkMissing(ctx context.Context, m Missing) error {
	key := missingPrefix + s.recordKey(&m)
	entry, _, err := storage.GetEntry(ctx, s.options.Backend, key, storage.Read{})
	if err != nil {
		return err
	}
	var known Missing
	if entry != nil && json.Unmarshal(entry.Value.Body(), &known) == nil && known.Revision == m.Revision {
		return nil
	}
	m.Since = s.options.Now().UTC().Truncate(time.Second)
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = s.options.Backend.Commit(ctx, storage.Mutation{Key: key, Expect: storage.AnyRevision, Value: storage.Body(body)})
	return err
}

// EachMissing calls fn with all that MarkMissing has noted.
func (s *Store) EachMissing(ctx context.Context, fn func(Missing) error) error {
	return storage.Each(ctx, s.options.Backend, missingPrefix+"/", false, func(e *storage.Entry) error {
		var m Missing
		if e.Err != nil || json.Unmarshal(e.Value.Body(), &m) != nil {
			return nil // the next comparison notes it anew
		}
		return fn(m)
	})
}

// CountMissing returns the number of notes of MarkMissing.
func (s *Store) CountMissing(ctx context.Context) (int64, error) {
	page, err := s.options.Backend.Scan(ctx, storage.ScanRequest{From: missingPrefix + "/", To: missingPrefix + "0", Limit: 1, KeysOnly: true, Count: true})
	if err != nil {
		return 0, err
	}
	return page.Count, nil
}

// UnmarkMissing takes a note of MarkMissing back.
func (s *Store) UnmarkMissing(ctx context.Context, m Missing) error {
	_, err := s.options.Backend.Commit(ctx, storage.Mutation{Operation: storage.Delete, Key: missingPrefix + s.recordKey(&m), Expect: storage.AnyRevision})
	return err
}

// Unchanged reports whether the record is the one that was found missing.
func (s *Store) Unchanged(ctx context.Context, m Missing) (bool, error) {
	entry, _, err := storage.GetEntry(ctx, s.options.Backend, s.recordKey(&m), storage.Read{})
	return entry != nil && entry.Revision == m.Revision, err
}
