package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"tallyman/storage"
)

// errRetry is returned by a commit in format 1 that was overtaken.
var errRetry = errors.New("the store changed faster than it could be written")

// commitFormat1 makes a commit that processes of the version before can read: bodies
// only, no terms. Where a replaced value goes is named by its revision, so that a
// mutation of any revision is made one of the revision that is there, again until that
// has not changed meanwhile.
func (s *Store) commitFormat1(ctx context.Context, mutations []storage.Mutation) (*storage.CommitResult, error) {
	expect := make([]int64, len(mutations))
	absent := make([]bool, len(mutations)) // unconditional deletions of absent keys
	for i := range mutations {
		if expect[i] = mutations[i].Expect; expect[i] == storage.AnyRevision {
			current, _, err := storage.GetEntry(ctx, s, mutations[i].Key, storage.Read{Sections: []string{}})
			if err != nil {
				return nil, err
			}
			expect[i], absent[i] = revisionOf(current), current == nil && mutations[i].Operation == storage.Delete
		}
	}
	const tries = 100
	for range tries {
		result, err := s.commitAt(ctx, mutations, expect, absent)
		if err != nil || result.Succeeded || mutations[result.Conflict].Expect != storage.AnyRevision {
			return result, err
		}
		i := result.Conflict
		expect[i] = revisionOf(result.Current)
		absent[i] = result.Current == nil && mutations[i].Operation == storage.Delete
	}
	return nil, fmt.Errorf("redis: %w", errRetry)
}

func revisionOf(e *storage.Entry) int64 {
	if e == nil {
		return 0
	}
	return e.Revision
}

func (s *Store) commitAt(ctx context.Context, mutations []storage.Mutation, expect []int64, absent []bool) (*storage.CommitResult, error) {
	keys, args := []string{s.meta, s.index, s.log, s.terms, s.outcomeKey(rand.Text()), s.holds}, []any{}
	for i := range mutations {
		m := mutations[i]
		if absent[i] {
			m = storage.Mutation{Operation: storage.Check, Key: m.Key}
		}
		if m.Operation != storage.CheckEmpty {
			keys = append(keys, s.valueKey(m.Key), s.versionKey(expect[i]), s.objectKey(m.Key))
		}
		args = appendMutation(args, &m, expect[i])
	}
	return s.runCommit(ctx, commit1Script, oldFormat, keys, args, mutations)
}
