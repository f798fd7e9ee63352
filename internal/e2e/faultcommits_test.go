package e2e

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
)

const (
	// groupSize is the number of keys that one commit of groups writes.
	groupSize = 5
	groupsKey = "/groups/"
)

// groups are keys of a store that are written five at a time. The keys of a group always
// have the same value, the number of the commit: a torn commit shows.
type groups struct {
	t     *testing.T
	count *tally
	store storage.Backend

	// Of the one writer:
	step      int // acknowledged last
	revisions []int64
	doubt     bool // whether the commit after step was made

	mu       sync.Mutex
	followed int // the step that the history has shown
}

// openGroups opens the store of the replicas beside them.
func openGroups(t *testing.T, o redis.Options, count *tally) *groups {
	t.Helper()
	store, err := redis.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return &groups{t: t, count: count, store: store, revisions: make([]int64, groupSize)}
}

// redisOptions returns the options of the store at an address, with those of the replicas
// that a set-up changes.
func redisOptions(addrs []string, change func(*redis.Options)) redis.Options {
	o := redis.Options{Client: goredis.UniversalOptions{Addrs: addrs}}
	if change != nil {
		change(&o)
	}
	return o
}

func groupKey(i int) string { return fmt.Sprint(groupsKey, i) }

// write makes commits until ctx ends.
func (g *groups) write(ctx context.Context) {
	for ctx.Err() == nil {
		if g.doubt && !g.resolve(ctx) {
			sleep(ctx, 50*time.Millisecond)
			continue
		}
		g.commit(ctx)
		sleep(ctx, 5*time.Millisecond)
	}
}

func (g *groups) commit(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var mutations []storage.Mutation
	for i := range groupSize {
		mutations = append(mutations, storage.Mutation{Key: groupKey(i), Expect: g.revisions[i], Value: storage.Body([]byte(strconv.Itoa(g.step + 1)))})
	}
	r, err := g.store.Commit(ctx, mutations...)
	if err != nil || !r.Succeeded {
		g.count.uncertain.Add(1)
		g.doubt = true
		return
	}
	g.count.acknowledged.Add(1)
	g.step, g.revisions = g.step+1, r.Revisions
}

// resolve reads the keys: they are as the last acknowledged commit or the one in doubt
// wrote them.
func (g *groups) resolve(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var keys []string
	for i := range groupSize {
		keys = append(keys, groupKey(i))
	}
	r, err := g.store.Get(ctx, storage.GetRequest{Keys: keys})
	if err != nil {
		return false
	}
	step, revisions := g.whole("a read", r.Entries)
	if step != g.step && step != g.step+1 {
		g.count.violation(g.t, "the keys are of commit %d: acknowledged was %d", step, g.step)
	}
	g.step, g.revisions, g.doubt = step, revisions, false
	return true
}

// whole returns the one step and the revisions of all keys of the group.
func (g *groups) whole(what string, entries []*storage.Entry) (step int, revisions []int64) {
	revisions = make([]int64, groupSize)
	for i, e := range entries {
		n := 0
		if e != nil {
			n, _ = strconv.Atoi(string(e.Value.Body()))
			revisions[i] = e.Revision
		}
		if i > 0 && n != step {
			g.count.violation(g.t, "%s is torn: key %d is of commit %d, key 0 of commit %d", what, i, n, step)
		}
		step = n
	}
	return step, revisions
}

// settle ends the doubt, once Redis is there again.
func (g *groups) settle(ctx context.Context) {
	for g.doubt && ctx.Err() == nil {
		if !g.resolve(ctx) {
			sleep(ctx, 50*time.Millisecond)
		}
	}
}

// follow reads the history until ctx ends. It wants each commit whole, and none left out
// unless it is told that its place is gone.
func (g *groups) follow(ctx context.Context) {
	after := int64(-1)
	for ctx.Err() == nil {
		if after < 0 {
			r, err := g.store.Scan(ctx, storage.ScanRequest{From: groupsKey, To: groupsKey + "\xff", Limit: 2 * groupSize})
			if err != nil {
				sleep(ctx, 50*time.Millisecond)
				continue
			}
			entries := make([]*storage.Entry, groupSize)
			for i := range r.Entries {
				entries[i] = &r.Entries[i]
			}
			step, _ := g.whole("a scan", entries)
			after = r.Revision
			g.saw(step)
		}
		changes, err := g.store.Log(ctx, storage.LogRequest{After: after, Limit: 50})
		switch {
		case errors.Is(err, storage.ErrCompacted), errors.Is(err, storage.ErrFuture):
			g.count.expired.Add(1)
			after = -1
		case err != nil:
			sleep(ctx, 50*time.Millisecond)
		case len(changes) > 0:
			g.apply(changes)
			after = changes[len(changes)-1].Revision
		}
	}
}

// apply checks one batch of the history.
func (g *groups) apply(changes []storage.Change) {
	keys, commit := 0, int64(0)
	for i := range changes {
		c := &changes[i]
		if c.Current == nil || len(c.Key) != len(groupKey(0)) || c.Key[:len(groupsKey)] != groupsKey {
			continue
		}
		if c.Commit != commit && keys > 0 {
			g.count.violation(g.t, "commit %d has %d keys in a batch of the history", commit, keys)
			keys = 0
		}
		commit = c.Commit
		if keys++; keys < groupSize {
			continue
		}
		keys = 0
		step, _ := strconv.Atoi(string(c.Current.Value.Body()))
		if before := g.known(); step != before+1 {
			g.count.violation(g.t, "the history went from commit %d to %d", before, step)
		}
		g.saw(step)
		g.count.events.Add(groupSize)
	}
	if keys > 0 {
		g.count.violation(g.t, "a batch of the history ends after %d keys of commit %d", keys, commit)
	}
}

func (g *groups) saw(step int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.followed = step
}

func (g *groups) known() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.followed
}

// compare wants the follower to know the last commit.
func (g *groups) compare() error {
	if known := g.known(); known != g.step {
		return fmt.Errorf("the history has shown commit %d, the truth is %d", known, g.step)
	}
	return nil
}
