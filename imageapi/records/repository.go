package records

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"tallyman/storage"
)

// Repository has the facts about a repository. Its revision is that of the last change of one of
// its tags.
type Repository struct {
	// Changed is the time of that change.
	Changed time.Time `json:"changed"`
}

// repositoryChanged adds the change that comes with changes of tags. It depends on nothing, so that
// pushes of different tags do not wait for each other.
func (s *Store) repositoryChanged(b *storage.Batch, repository string) error {
	key := RepositoryPrefix + repository
	if b.Changes(key) {
		return nil // with another tag
	}
	body, err := json.Marshal(Repository{Changed: s.options.Now().UTC().Truncate(time.Second)})
	if err == nil {
		b.Add(storage.Mutation{Key: key, Expect: storage.AnyRevision, Value: storage.Body(body)})
	}
	return err
}

// Tags returns the number of tags of a repository.
func (s *Store) Tags(ctx context.Context, repository string) (int64, error) {
	prefix := s.tagPrefix(repository)
	page, err := s.options.Backend.Scan(ctx, storage.ScanRequest{From: prefix, To: prefix + "\xff", Limit: 1, KeysOnly: true, Count: true})
	if err != nil {
		return 0, err
	}
	return page.Count, nil
}

// EachRepository calls fn with every repository that has a record.
func (s *Store) EachRepository(ctx context.Context, fn func(name string) error) error {
	return storage.Each(ctx, s.options.Backend, RepositoryPrefix, true, func(e *storage.Entry) error {
		return fn(strings.TrimPrefix(e.Key, RepositoryPrefix))
	})
}
