package records

import (
	"context"
	"strings"

	"tallyman/storage"
)

// UnderwayPrefix starts the keys of repositories with changes under way:
// /underway/<process>/<repository>.
const UnderwayPrefix = "/underway/"

// Begin notes that a process changes a repository, so that others find it when the process dies
// between a change of the registry and that of the records.
func (s *Store) Begin(ctx context.Context, process, repository string) error {
	_, err := s.options.Backend.Commit(ctx, storage.Mutation{
		Key: UnderwayPrefix + process + "/" + repository, Expect: storage.AnyRevision, Value: storage.Body([]byte("{}")),
	})
	return err
}

// End takes a note of Begin back.
func (s *Store) End(ctx context.Context, process, repository string) error {
	_, err := s.options.Backend.Commit(ctx, storage.Mutation{
		Operation: storage.Delete, Key: UnderwayPrefix + process + "/" + repository, Expect: storage.AnyRevision,
	})
	return err
}

// Underway returns the repositories with changes under way, by process.
func (s *Store) Underway(ctx context.Context) (map[string][]string, error) {
	ctx, all := storage.WithBackground(ctx), map[string][]string{}
	err := storage.Each(ctx, s.options.Backend, UnderwayPrefix, true, func(e *storage.Entry) error {
		process, repository, _ := strings.Cut(strings.TrimPrefix(e.Key, UnderwayPrefix), "/")
		all[process] = append(all[process], repository)
		return nil
	})
	return all, err
}
