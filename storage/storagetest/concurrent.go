package storagetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tallyman/storage"
)

// testConcurrentModel has several goroutines make commits of several keys while the history is
// followed: replaying it gives the content of the store.
func testConcurrentModel(t *testing.T, b storage.Backend) {
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	completeIndex(t, b)
	var writers sync.WaitGroup
	for n := range 4 {
		writers.Go(func() {
			m := &model{random: rand.New(rand.NewPCG(uint64(n), 5))} //nolint:gosec // a test wants the same numbers each time
			for range 60 {
				mutations := m.commit()
				for i := range mutations {
					if mutations[i].Expect = storage.AnyRevision; mutations[i].Operation == storage.Check {
						mutations[i].Expect = 0
					}
				}
				if _, err := b.Commit(t.Context(), mutations...); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		writers.Wait()
		close(done)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	state, position := map[string]string{}, start.Current
	for {
		select {
		case <-done:
			w, err := b.Window(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if position >= w.Current {
				compareReplay(t, b, state)
				return
			}
		default:
		}
		position = replay(ctx, t, b, state, position)
	}
}

// replay applies a batch of changes, if there is one soon, and returns the position.
func replay(ctx context.Context, t *testing.T, b storage.Backend, state map[string]string, position int64) int64 {
	t.Helper()
	w, err := b.Window(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if w.Current == position {
		return position
	}
	changes, err := b.Log(ctx, storage.LogRequest{After: position, Limit: 7, Read: storage.Read{Terms: true}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range changes {
		c := &changes[i]
		if c.Before != position || state[c.Key] != "" && printEntry(c.Previous) != state[c.Key] {
			t.Fatalf("%+v replaced %s after %d, want %s", c, printEntry(c.Previous), position, state[c.Key])
		}
		if state[c.Key] = printEntry(c.Current); c.Delete {
			delete(state, c.Key)
		}
		position = c.Revision
	}
	return position
}

func compareReplay(t *testing.T, b storage.Backend, state map[string]string) {
	t.Helper()
	r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Read: storage.Read{Terms: true}})
	for i := range r.Entries {
		if e := &r.Entries[i]; state[e.Key] != printEntry(e) {
			t.Errorf("the history ends with %s, the store holds %s", state[e.Key], printEntry(e))
		}
	}
	if len(state) != len(r.Entries) {
		t.Errorf("the history ends with %d entries, the store holds %d", len(state), len(r.Entries))
	}
	for i := range modelTerms {
		term, want := fmt.Sprint("t", i), 0
		for e := range r.Entries {
			if storage.HasTerm(r.Entries[e].Terms, storage.HashTerm(term)) {
				want++
			}
		}
		if got := len(strings.Fields(names(t, b, term, 0))); got != want {
			t.Errorf("%d entries carry %s, a scan by it has %d", want, term, got)
		}
	}
}

// checkCurrent wants a conflict to return the entry that stands in the way.
func (m *model) checkCurrent(t *testing.T, mutation *storage.Mutation, current *storage.Entry) {
	t.Helper()
	if mutation.Operation == storage.CheckEmpty {
		if e, ok := m.entries[current.Key]; !ok || e.revision != current.Revision || current.Key < mutation.From || current.Key >= mutation.To {
			t.Fatalf("%+v is in the way of %+v", current, mutation)
		}
		return
	}
	if e, ok := m.entries[mutation.Key]; ok != (current != nil) || ok && (current.Revision != e.revision || string(current.Value.Section("other")) != e.sections["other"]) {
		t.Fatalf("%+v is in the way of %+v, want %+v", current, mutation, e)
	}
}

// compareScan compares a random scan.
func (m *model) compareScan(t *testing.T, b storage.Backend) {
	t.Helper()
	req := storage.ScanRequest{From: fmt.Sprintf("/k%02d", m.random.IntN(modelKeys)), To: "0", Limit: m.random.IntN(8), Read: storage.Read{Terms: true}}
	entries, revision := m.entries, int64(0)
	if m.random.IntN(4) > 0 && len(m.all) > 0 {
		req.Revision = m.all[m.random.IntN(len(m.all))]
		revision = m.ends[req.Revision]
		entries = m.states[revision]
	}
	if m.random.IntN(2) == 0 {
		req.Term = fmt.Sprint("t", m.random.IntN(modelTerms))
	} else {
		req.Count = m.random.IntN(2) == 0
	}
	if m.random.IntN(4) == 0 {
		req.To = fmt.Sprintf("/k%02d", m.random.IntN(modelKeys))
	}
	var want []string
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		if key >= req.From && key < req.To && (req.Term == "" || entries[key].has(req.Term)) {
			want = append(want, entries[key].print(key))
		}
	}
	count, more := int64(len(want)), req.Limit > 0 && len(want) > req.Limit
	if more {
		want = want[:req.Limit]
	}
	got := scan(t, b, req)
	var entriesGot []string
	for i := range got.Entries {
		entriesGot = append(entriesGot, printEntry(&got.Entries[i]))
	}
	if !slices.Equal(entriesGot, want) || got.More != more || req.Count && got.Count != count || revision != 0 && got.Revision != revision {
		t.Fatalf("%+v (commit ends at %d):\n got %v, more %v, count %d, at %d\nwant %v, more %v, count %d", req, revision, entriesGot, got.More, got.Count, got.Revision, want, more, count)
	}
}

// compareLog follows the history from after to its end, in batches and once from every
// third revision.
func (m *model) compareLog(t *testing.T, b storage.Backend, after int64) {
	t.Helper()
	last := m.all[len(m.all)-1]
	begin := append([]int64{after}, m.all...)
	for i := 0; i < len(begin) && begin[i] < last; i += 1 + 40*min(i, 1) {
		position := begin[i]
		for position < last {
			changes, err := b.Log(t.Context(), storage.LogRequest{After: position, Limit: 1 + m.random.IntN(9), Read: storage.Read{Terms: true}})
			if err != nil {
				t.Fatalf("after %d: %v", position, err)
			}
			for n := range changes {
				m.compareChange(t, &changes[n], position)
				position = changes[n].Revision
			}
			if m.ends[position] != position {
				t.Fatalf("a batch ends inside a commit, at %d of %d", position, m.ends[position])
			}
		}
	}
}

// compareChange compares one change, which follows position.
func (m *model) compareChange(t *testing.T, c *storage.Change, position int64) {
	t.Helper()
	end, known := m.ends[c.Revision]
	if !known || c.Before != position || c.Commit != end || c.Delete != (c.Current == nil) {
		t.Fatalf("%+v after %d: want before %d and commit %d", c, position, position, end)
	}
	after, exists := m.states[end][c.Key]
	if exists == c.Delete || exists && printEntry(c.Current) != after.print(c.Key) {
		t.Fatalf("change %d made %s, want %s", c.Revision, printEntry(c.Current), after.print(c.Key))
	}
	if c.Previous == nil {
		return
	}
	before, exists := m.states[m.ends[c.Previous.Revision]][c.Key]
	if !exists || printEntry(c.Previous) != before.print(c.Key) {
		t.Fatalf("change %d replaced %s, want %s", c.Revision, printEntry(c.Previous), before.print(c.Key))
	}
}

// testConcurrentCommits has many goroutines add one to one key: no increment is
// lost, and the log has every one, in order.
func testConcurrentCommits(t *testing.T, b storage.Backend) {
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "/n", "0", 0)
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if err := increment(t.Context(), b); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	entry, _, err := storage.GetEntry(t.Context(), b, "/n", storage.Read{})
	if err != nil || string(entry.Value.Body()) != fmt.Sprint(workers*each) {
		t.Errorf("the sum is %s, want %d, %v", entry.Value.Body(), workers*each, err)
	}
	changes, err := b.Log(t.Context(), storage.LogRequest{After: w.Current})
	if err != nil || len(changes) != workers*each+1 {
		t.Fatalf("%d changes, want %d, %v", len(changes), workers*each+1, err)
	}
	for i := 1; i < len(changes); i++ {
		if changes[i].Revision <= changes[i-1].Revision || revisionOf(changes[i].Previous) != changes[i-1].Revision || body(changes[i].Current) != fmt.Sprint(i) {
			t.Fatalf("change %d is %+v after %+v", i, changes[i], changes[i-1])
		}
	}
}

func increment(ctx context.Context, b storage.Backend) error {
	for {
		entry, _, err := storage.GetEntry(ctx, b, "/n", storage.Read{})
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscan(string(entry.Value.Body()), &n); err != nil {
			return err
		}
		r, err := b.Commit(ctx, storage.Mutation{Key: "/n", Value: storage.Body([]byte(fmt.Sprint(n + 1))), Expect: entry.Revision})
		if err != nil || r.Succeeded {
			return err
		}
	}
}

func testClose(t *testing.T, b storage.Backend) {
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := b.Log(t.Context(), storage.LogRequest{After: w.Current})
		ended <- err
	}()
	time.Sleep(10 * time.Millisecond) // most of the time Log is waiting by then; the outcome is the same if not
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, storage.ErrClosed) {
		t.Errorf("Log at Close: %v", err)
	}
	_, _, getErr := storage.GetEntry(t.Context(), b, "/a", storage.Read{})
	_, scanErr := b.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"})
	_, commitErr := b.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body([]byte("1"))})
	_, windowErr := b.Window(t.Context())
	for call, err := range map[string]error{"Get": getErr, "Scan": scanErr, "Commit": commitErr, "Window": windowErr} {
		if !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s after Close: %v", call, err)
		}
	}
}
