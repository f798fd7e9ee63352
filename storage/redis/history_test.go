package redis_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// TestListsShareHistory reads the pages of two lists at different revisions by turns. The
// history since then is read from Redis once, whichever list begins.
func TestListsShareHistory(t *testing.T) {
	for name, newFirst := range map[string]bool{"older list first": false, "newer list first": true} {
		t.Run(name, func(t *testing.T) {
			s := open(t, redis.Options{}, redistest.Any(t, flavor).Addr)
			var revisions []int64
			for i := range 48 {
				revisions = append(revisions, commitMany(t, s, i%2))
			}
			lists := []int64{revisions[15], revisions[31]}
			if newFirst {
				lists[0], lists[1] = lists[1], lists[0]
			}
			for _, revision := range lists {
				defer s.Hold(revision).Release()
			}
			var trips atomic.Int64
			s.AddHook(hook(func(ctx context.Context, _ int) {
				if ctx.Value(countedKey{}) != nil {
					trips.Add(1)
				}
			}))
			ctx := context.WithValue(t.Context(), countedKey{}, true)
			page := func(revision int64) {
				r, err := s.Scan(ctx, storage.ScanRequest{From: "/", To: "0", Limit: 10, Revision: revision, KeysOnly: true})
				if err != nil || len(r.Entries) != 10 || r.Entries[9].Revision > revision {
					t.Fatalf("%+v, %v", r, err)
				}
			}
			for range 2 { // loads the scripts, too
				page(lists[0])
				page(lists[1])
			}
			trips.Store(0)
			const turns = 10
			for range turns {
				page(lists[0])
				page(lists[1])
			}
			if got := trips.Load(); got > 2*turns {
				t.Errorf("%d pages take %d round trips", 2*turns, got)
			}
		})
	}
}

// commitMany writes 64 keys, in one of two sets, and returns the revision after.
func commitMany(t *testing.T, s *redis.Store, set int) int64 {
	t.Helper()
	var mutations []storage.Mutation
	for i := range storage.MaxMutations {
		mutations = append(mutations, storage.Mutation{Key: fmt.Sprintf("/%d/%d", set, i), Expect: storage.AnyRevision, Value: storage.Body([]byte("x"))})
	}
	r, err := s.Commit(t.Context(), mutations...)
	if err != nil {
		t.Fatal(err)
	}
	return r.Revision
}

// TestHistoryDoesNotWait reads a page whose history is in memory while another list reads
// its own from a server that does not answer.
func TestHistoryDoesNotWait(t *testing.T) {
	s := open(t, redis.Options{}, redistest.Start(t, flavor).Addr)
	old := commitMany(t, s, 0)
	shown := commitMany(t, s, 1)
	commitMany(t, s, 0)
	scan := func(ctx context.Context, revision int64) error {
		_, err := s.Scan(ctx, storage.ScanRequest{From: "/", To: "0", Limit: 10, Revision: revision, KeysOnly: true})
		return err
	}
	defer s.Hold(old).Release()
	if err := scan(t.Context(), shown); err != nil {
		t.Fatal(err)
	}
	blocked, release := make(chan struct{}), make(chan struct{})
	type slowKey struct{}
	var calls atomic.Int64
	s.AddHook(hook(func(ctx context.Context, _ int) {
		if ctx.Value(slowKey{}) != nil && calls.Add(1) == 2 { // the first is the page, the second the history
			close(blocked)
			<-release
		}
	}))
	result := make(chan error)
	go func() { result <- scan(context.WithValue(t.Context(), slowKey{}, true), old) }()
	<-blocked
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := scan(ctx, shown); err != nil {
		t.Errorf("a page whose history is known: %v", err)
	}
	ended, cancelEnded := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelEnded()
	if err := scan(ended, old); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a page that waits for the history, after its deadline: %v", err)
	}
	close(release)
	if err := <-result; err != nil {
		t.Error(err)
	}
}
