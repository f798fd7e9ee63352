package records

import (
	"context"
	"strings"

	"tallyman/storage"
)

// repositoryKey returns the key of a repository. Keys sort by the components of names, as the repositories
// of distribution do: a/b comes before a-b.
func repositoryKey(name string) string {
	return RepositoryPrefix + strings.ReplaceAll(name, "/", separator)
}

func repositoryOf(key string) string {
	return strings.ReplaceAll(strings.TrimPrefix(key, RepositoryPrefix), separator, "/")
}

// separator sorts below every character of a component.
const separator = "!"

// EachRepository calls fn with every repository that has a record, by the components of their names.
func (s *Store) EachRepository(ctx context.Context, fn func(name string) error) error {
	return storage.Each(ctx, s.options.Backend, RepositoryPrefix, true, func(e *storage.Entry) error { return fn(repositoryOf(e.Key)) })
}

// RepositoryNames returns the repositories with tags behind the one called last, by the components of
// their names, up to limit of them. more is true if there are limit of them.
func (s *Store) RepositoryNames(ctx context.Context, limit int, last string) (names []string, more bool, err error) {
	request := storage.ScanRequest{From: RepositoryPrefix, To: RepositoryPrefix + "\xff"}
	if last != "" {
		request.From = repositoryKey(last) + "\x00"
	}
	return s.names(ctx, request, limit, func(key string) (string, error) {
		name := repositoryOf(key)
		has, err := s.hasTags(ctx, name)
		if err != nil || !has { // all of them were deleted
			return "", err
		}
		return name, nil
	})
}
