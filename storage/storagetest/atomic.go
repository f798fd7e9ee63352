package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"tallyman/storage"
)

// testCommitIsAtomic moves a token between keys, in commits of several goroutines,
// while readers look: there is always one.
func testCommitIsAtomic(t *testing.T, b storage.Backend) {
	commit(t, b, putOf("/0", "token", 0), putOf("/count", "0", 0))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers, readers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			for i := range 40 {
				if err := moveToken(ctx, b, fmt.Sprintf("/%d", i%5)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	readers.Go(func() {
		for ctx.Err() == nil {
			r, err := b.Scan(ctx, storage.ScanRequest{From: "/", To: "/:"})
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
				return
			}
			if err == nil && len(r.Entries) != 1 {
				t.Errorf("a reader sees %s", keys(r.Entries))
				return
			}
		}
	})
	writers.Wait()
	cancel()
	readers.Wait()
}

func moveToken(ctx context.Context, b storage.Backend, to string) error {
	for {
		r, err := b.Scan(ctx, storage.ScanRequest{From: "/", To: "/:"})
		if err != nil {
			return err
		}
		if from := r.Entries[0]; from.Key != to {
			result, err := b.Commit(ctx, storage.Mutation{Operation: storage.Delete, Key: from.Key, Expect: from.Revision}, putOf(to, "token", 0))
			if err != nil {
				return err
			}
			if !result.Succeeded {
				continue
			}
		}
		return nil
	}
}

// testInsideACommit: no reader sees a part of a commit, at any revision.
func testInsideACommit(t *testing.T, b storage.Backend) {
	before := put(t, b, "/a", "0", 0)
	r := commit(t, b, putOf("/a", "1", before), putOf("/b", "1", 0), putOf("/c", "1", 0))
	after := put(t, b, "/a", "2", r.Revisions[0])
	for i, revision := range r.Revisions {
		got := scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: revision, Count: true})
		if keys(got.Entries) != "/a=1 /b=1 /c=1" || got.Revision != r.Revision || got.Count != 3 {
			t.Errorf("at change %d: %s, count %d, at %d, want the end %d", i, keys(got.Entries), got.Count, got.Revision, r.Revision)
		}
		changes, err := b.Log(t.Context(), storage.LogRequest{After: revision})
		if err != nil || len(changes) != 3-i || changes[len(changes)-1].Revision != after {
			t.Errorf("after change %d: %+v, %v", i, changes, err)
		}
	}
	for _, limit := range []int{1, 2, 3} {
		changes, err := b.Log(t.Context(), storage.LogRequest{After: before, Limit: limit})
		if err != nil || len(changes) != 3 {
			t.Errorf("at most %d changes: %d, %v; want the whole commit", limit, len(changes), err)
			continue
		}
		for i, c := range changes {
			if c.Commit != r.Revision || c.Revision != r.Revisions[i] || c.Before != append([]int64{before}, r.Revisions...)[i] {
				t.Errorf("change %d is %+v", i, c)
			}
		}
	}
	if err := b.Compact(t.Context(), r.Revisions[1]); err != nil {
		t.Fatal(err)
	}
	if w, err := b.Window(t.Context()); err != nil || w.Compacted != before {
		t.Errorf("compacting to the middle of a commit: %+v, %v, want the change before it, %d", w, err, before)
	}
	if err := b.Compact(t.Context(), r.Revision); err != nil {
		t.Fatal(err)
	}
	if w, err := b.Window(t.Context()); err != nil || w.Compacted != r.Revision {
		t.Errorf("compacting a commit: %+v, %v", w, err)
	}
	if _, err := b.Log(t.Context(), storage.LogRequest{After: r.Revisions[1]}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from the middle of a dropped commit: %v", err)
	}
}
