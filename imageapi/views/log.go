package views

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"tallyman/storage"
)

// Log implements storage.Backend. Changes of the store that change no object stay, with their keys and
// without values, so that a reader gets on.
func (b *Backend) Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error) {
	req.Read = bodies
	changes, err := b.Backend.Log(ctx, req)
	if err != nil {
		return nil, err
	}
	var all []storage.Change
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && changes[n].Commit == changes[0].Commit {
			n++
		}
		shown, err := b.changesOf(ctx, changes[:n])
		if err != nil {
			return nil, err
		}
		all, changes = append(all, shown...), changes[n:]
	}
	return all, nil
}

// changesOf returns the changes of objects that one commit makes, in the order of their revisions.
func (b *Backend) changesOf(ctx context.Context, commit []storage.Change) ([]storage.Change, error) {
	then := &snapshot{backend: b.Backend, revision: commit[0].Before, known: map[string]*storage.Entry{}}
	now := &snapshot{backend: b.Backend, revision: commit[0].Commit, known: map[string]*storage.Entry{}, before: then}
	for i := range commit {
		now.known[commit[i].Key], then.known[commit[i].Key] = commit[i].Current, commit[i].Previous
	}
	last := map[string]*storage.Change{} // by the source key of an object
	for i := range commit {
		keys, err := b.view.affected(ctx, now, &commit[i])
		if err != nil {
			return nil, err
		}
		for _, key := range keys {
			last[key] = &commit[i]
		}
	}
	var shown []storage.Change
	told := map[int64]bool{}
	for key, c := range last {
		change, err := b.change(ctx, then, now, key, c)
		if err != nil {
			return nil, err
		}
		if change != nil {
			shown, told[change.Revision] = append(shown, *change), true
		}
	}
	for i := range commit {
		if c := &commit[i]; !told[c.Revision] {
			shown = append(shown, storage.Change{Revision: c.Revision, Key: c.Key, Commit: c.Commit, Before: c.Before, Delete: c.Delete})
		}
	}
	slices.SortFunc(shown, func(a, b storage.Change) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Key, b.Key))
	})
	return shown, nil
}

// change returns the change of the object with a source key, nil if it is none. c is the last change of
// its parts.
func (b *Backend) change(ctx context.Context, then, now *snapshot, key string, c *storage.Change) (*storage.Change, error) {
	previous, err := b.objectAt(ctx, then, key)
	if err != nil {
		return nil, err
	}
	current, err := b.objectAt(ctx, now, key)
	if err != nil {
		return nil, err
	}
	if previous == nil && current == nil || previous != nil && current != nil && previous.Err == nil && current.Err == nil && bytes.Equal(previous.Value.Body(), current.Value.Body()) {
		return nil, nil
	}
	return &storage.Change{
		Revision: c.Revision, Key: b.ownOf(key), Commit: c.Commit, Before: c.Before, Delete: current == nil, Current: current, Previous: previous,
	}, nil
}

// objectAt returns the object with a source key, nil if there is none.
func (b *Backend) objectAt(ctx context.Context, s *snapshot, key string) (*storage.Entry, error) {
	entries, err := s.get(ctx, key)
	if err != nil {
		return nil, err
	}
	return b.assembleOne(ctx, s, entries[key])
}
