package records

import (
	"context"
	"errors"
	"strings"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"

	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// tagPrefix starts the keys of a repository's tags.
func (s *Store) tagPrefix(repository string) string {
	return TagPrefix + streams.KeyPrefix(s.options.Names.Stream(repository))
}

// TagNames returns the tags of a repository behind the one called last that point to a manifest, in the
// order of bytes: up to limit of them, or all if that is negative. more is true if there are limit of
// them.
func (s *Store) TagNames(ctx context.Context, repository string, limit int, last string) (names []string, more bool, err error) {
	prefix := s.tagPrefix(repository)
	request := storage.ScanRequest{From: prefix, To: prefix + "\xff"}
	if last != "" {
		request.From = prefix + last + "\x00"
	}
	pending, err := s.pendingTags(ctx, prefix)
	if err != nil {
		return nil, false, err
	}
	return s.names(ctx, request, limit, func(key string) (string, error) {
		if pending[key] {
			return "", nil
		}
		return strings.TrimPrefix(key, prefix), nil
	})
}

// pendingTags returns the keys of tags that point to nothing yet.
func (s *Store) pendingTags(ctx context.Context, prefix string) (map[string]bool, error) {
	pending := map[string]bool{}
	err := s.each(ctx, prefix, ImageTerm(""), func(e *storage.Entry) bool {
		tag, err := DecodeTag(e)
		return err == nil && points(tag) == ""
	}, func(e *storage.Entry) error {
		pending[e.Key] = true
		return nil
	})
	return pending, err
}

// hasTags reports whether a repository has tags that point to a manifest.
func (s *Store) hasTags(ctx context.Context, repository string) (bool, error) {
	prefix := s.tagPrefix(repository)
	err := storage.EachOf(ctx, s.options.Backend, storage.ScanRequest{From: prefix, To: prefix + "\xff", Limit: 10}, func(e *storage.Entry) error {
		if tag, err := DecodeTag(e); err == nil && points(tag) == "" {
			return nil
		}
		return errEnough
	})
	if errors.Is(err, errEnough) {
		return true, nil
	}
	return false, err
}

// names returns the names that name makes of the keys in a range, "" for none: up to limit of them, or
// all if that is negative. more is true if there are limit of them.
func (s *Store) names(ctx context.Context, request storage.ScanRequest, limit int, name func(key string) (string, error)) (names []string, more bool, err error) {
	request.KeysOnly, request.Limit = true, namesPage
	if limit > 0 {
		request.Limit = min(limit, namesPage)
	}
	err = storage.EachOf(ctx, s.options.Backend, request, func(e *storage.Entry) error {
		found, err := name(e.Key)
		if err != nil || found == "" {
			return err
		}
		if names = append(names, found); len(names) == limit {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return names, true, nil
	}
	return names, false, err
}

// namesPage is how many names are read at once.
const namesPage = 1000

// TagsOf returns the tags of a repository that point to a manifest, up to limit of them, or all if
// that is 0.
func (s *Store) TagsOf(ctx context.Context, repository string, to digest.Digest, limit int) (tags []string, err error) {
	prefix := s.tagPrefix(repository)
	add := func(e *storage.Entry) error {
		if tags = append(tags, strings.TrimPrefix(e.Key, prefix)); len(tags) == limit {
			return errEnough
		}
		return nil
	}
	err = s.each(ctx, prefix, ImageTerm(to), func(e *storage.Entry) bool {
		tag := readable(e)
		return tag != nil && points(tag) == to
	}, add)
	if errors.Is(err, errEnough) {
		err = nil
	}
	return tags, err
}

// EachTag calls fn with every tag of a repository that has a record and points to a manifest, or cannot be
// read, with the manifest and the revision of the record.
func (s *Store) EachTag(ctx context.Context, repository string, fn func(tag string, to digest.Digest, revision int64) error) error {
	return s.eachTag(ctx, repository, func(e *storage.Entry, tag string) error {
		object := readable(e)
		switch {
		case object == nil:
			return fn(tag, "", e.Revision)
		case points(object) == "":
			return nil
		}
		return fn(tag, points(object), e.Revision)
	})
}

// EachTagRecord calls fn with every tag of a repository that can be read, with the manifest that it points
// to, "" for none, and the revision of the record.
func (s *Store) EachTagRecord(ctx context.Context, repository string, fn func(tag string, to digest.Digest, revision int64) error) error {
	return s.eachTag(ctx, repository, func(e *storage.Entry, tag string) error {
		if object := readable(e); object != nil {
			return fn(tag, points(object), e.Revision)
		}
		return nil
	})
}

func (s *Store) eachTag(ctx context.Context, repository string, fn func(e *storage.Entry, tag string) error) error {
	prefix := s.tagPrefix(repository)
	return storage.Each(ctx, s.options.Backend, prefix, false, func(e *storage.Entry) error { return fn(e, strings.TrimPrefix(e.Key, prefix)) })
}

// EachImport calls fn with the tags of all repositories whose source in another registry nobody has tried to import
// since it was set or, if scheduled is set, that is to be imported again and again. It finds none before everything
// in the registry has its records.
func (s *Store) EachImport(ctx context.Context, scheduled bool, fn func(*imagev1.ImageTag) error) error {
	if !s.indexed.Load() {
		if complete, err := s.Complete(ctx); err != nil || !complete {
			return err
		}
	}
	term, wanted := importTerm, streams.ImportPending
	if scheduled {
		term, wanted = importScheduledTerm, streams.ImportScheduled
	}
	carries := func(e *storage.Entry) bool {
		tag, err := DecodeTag(e)
		return err == nil && wanted(tag)
	}
	return s.eachWhole(ctx, TagPrefix, term, carries, func(e *storage.Entry) error {
		tag, err := DecodeTag(e)
		if err != nil || !wanted(tag) {
			return nil //nolint:nilerr // it has changed since, or is for `store check`
		}
		return fn(tag)
	})
}
