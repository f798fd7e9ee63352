package storage_test

import (
	"errors"
	"testing"

	"tallyman/storage"
	"tallyman/storage/memory"
)

func TestBatch(t *testing.T) {
	put := func(key string, expect int64) storage.Mutation {
		return storage.Mutation{Key: key, Expect: expect, Value: storage.Body([]byte(key))}
	}
	check := func(key string, revision int64) storage.Mutation {
		return storage.Mutation{Operation: storage.Check, Key: key, Expect: revision}
	}
	for name, test := range map[string]struct {
		fill      func(b *storage.Batch, there int64) // "/there" is at that revision
		committed bool
		err       error
		written   bool // "/a" and "/b", in one commit
	}{
		"nothing": {func(*storage.Batch, int64) {}, true, nil, false},
		"two writes and a condition of both": {func(b *storage.Batch, there int64) {
			b.Add(put("/a", 0), check("/there", there))
			b.Add(put("/b", 0), check("/there", there))
		}, true, nil, true},
		"one that comes last": {func(b *storage.Batch, there int64) {
			b.AddLast(put("/b", 0))
			b.Add(put("/a", 0), check("/there", there))
			if !b.Changes("/b") || b.Changes("/there") {
				t.Error("it says that it changes other keys")
			}
		}, true, nil, true},
		"a conflict of the last": {func(b *storage.Batch, there int64) {
			b.AddLast(put("/b", 5))
			b.Add(put("/a", 0), check("/there", there))
		}, false, nil, false},
		"a conflict": {func(b *storage.Batch, _ int64) {
			b.Add(put("/a", 0))
			b.Add(put("/b", 5))
		}, false, nil, false},
		"a condition that does not hold": {func(b *storage.Batch, there int64) {
			b.Add(put("/a", 0), check("/there", there-1))
			b.Add(put("/b", 0))
		}, false, storage.ErrConditionFailed, false},
		"nothing to write":                     {func(b *storage.Batch, there int64) { b.Add(check("/there", there)) }, true, nil, false},
		"nothing to write, but it has changed": {func(b *storage.Batch, there int64) { b.Add(check("/there", there-1)) }, false, nil, false},
	} {
		store := memory.New(memory.Options{})
		before, err := store.Commit(t.Context(), put("/there", 0))
		if err != nil {
			t.Fatal(err)
		}
		b := &storage.Batch{}
		if ctx := storage.WithBatch(t.Context(), b); storage.BatchOf(ctx) != b || storage.BatchOf(t.Context()) != nil {
			t.Fatal("a context does not have its batch")
		}
		test.fill(b, before.Revision)
		committed, err := b.Commit(t.Context(), store)
		if committed != test.committed || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, %v", name, committed, err)
		}
		changes, err := store.Log(t.Context(), storage.LogRequest{After: before.Revision, NoWait: true})
		if err != nil {
			t.Fatal(err)
		}
		if test.written && (len(changes) != 2 || changes[0].Key != "/a" || changes[0].Commit != changes[1].Commit) || !test.written && len(changes) > 0 {
			t.Errorf("%s: %d changes: %+v", name, len(changes), changes)
		}
	}
}
