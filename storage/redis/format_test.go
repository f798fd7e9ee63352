package redis_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// history1 makes a history in s: {key, value} puts, {key} deletes, several in one
// commit. It returns the last revision of each commit.
func history1(t *testing.T, s *redis.Store, commits [][][]string) []int64 {
	t.Helper()
	var revisions []int64
	for _, changes := range commits {
		var mutations []storage.Mutation
		for _, c := range changes {
			m := storage.Mutation{Operation: storage.Delete, Key: c[0], Expect: storage.AnyRevision}
			if len(c) > 1 {
				m.Operation, m.Value = storage.Put, storage.Body([]byte(c[1]))
			}
			mutations = append(mutations, m)
		}
		r, err := s.Commit(t.Context(), mutations...)
		if err != nil || !r.Succeeded {
			t.Fatalf("%v: %+v, %v", changes, r, err)
		}
		revisions = append(revisions, r.Revision)
	}
	return revisions
}

// TestFormat1: a store of the format before is read and written as it is, with commits
// of several keys, and goes on with all its history when it is upgraded.
func TestFormat1(t *testing.T) {
	server := redistest.Any(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	server.Command(t, "HSET", "{tallyman}:meta", "format", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, redis.Options{CacheBytes: 1 << 20}, server.Addr)
	if s.Format() != 1 {
		t.Fatalf("the format is %d", s.Format())
	}
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("long ", 100)
	revisions := history1(t, s, [][][]string{
		{{"/a", "1"}, {"/b", long}}, {{"/a", "2"}}, {{"/b"}, {"/c", "1"}, {"/none"}}, {{"/b", "3"}, {"/a", "3"}},
	})
	states := []string{"/a=1 /b=long", "/a=2 /b=long", "/a=2 /c=1", "/a=3 /b=3 /c=1"}
	changes := []string{"/a:none>1", "/b:none>long", "/a:1>2", "/b:long>none", "/c:none>1", "/b:none>3", "/a:2>3"}
	check := func(s *redis.Store, step string) {
		t.Helper()
		show := func(e *storage.Entry) string {
			if e == nil {
				return "none"
			}
			return strings.ReplaceAll(string(e.Value.Body()), long, "long")
		}
		for i, want := range states {
			r, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Revision: revisions[i]})
			if err != nil {
				t.Fatal(step, err)
			}
			var shown []string
			for n := range r.Entries {
				shown = append(shown, r.Entries[n].Key+"="+show(&r.Entries[n]))
			}
			if got := strings.Join(shown, " "); got != want {
				t.Errorf("%s: at commit %d: %s, want %s", step, i, got, want)
			}
		}
		log, err := s.Log(t.Context(), storage.LogRequest{After: w.Current, Limit: len(changes)})
		if err != nil {
			t.Fatal(step, err)
		}
		var shown []string
		for _, c := range log {
			shown = append(shown, c.Key+":"+show(c.Previous)+">"+show(c.Current))
		}
		if !slices.Equal(shown[:len(changes)], changes) {
			t.Errorf("%s: the history is %v, want %v", step, shown, changes)
		}
	}
	check(s, "format 1")
	if _, err := s.CountTerms(t.Context(), []string{"x"}); !errors.Is(err, storage.ErrNoIndex) {
		t.Errorf("terms in format 1: %v", err)
	}
	// Another process, with nothing in its cache, upgrades; this one finds out.
	other := open(t, redis.Options{}, server.Addr)
	check(other, "another process")
	if from, to, err := other.Upgrade(t.Context()); err != nil || from != 1 || to != 3 {
		t.Fatal(from, to, err)
	}
	check(s, "upgraded")
	check(other, "upgraded by itself")
	e, _, err := storage.GetEntry(t.Context(), s, "/c", storage.Read{})
	if err != nil {
		t.Fatal(err)
	}
	filled, err := other.FillIndex(t.Context(), storage.FillRequest{
		Name: "/", Next: storage.IndexState{Version: "1", Complete: true}, Entries: []storage.IndexedEntry{{Key: "/c", Revision: e.Revision, Group: "g", Terms: []string{"red"}}},
	})
	if err != nil || !filled {
		t.Fatal(filled, err)
	}
	revisions = append(revisions, history1(t, s, [][][]string{{{"/a", "4"}, {"/b"}}, {{"/c", "2"}}})...)
	states = append(states, "/a=4 /c=1", "/a=4 /c=2")
	changes = append(changes, "/a:3>4", "/b:3>none", "/c:1>2")
	check(s, "written in format 3")
	check(open(t, redis.Options{}, server.Addr), "written in format 3, a fresh process")
	if err := s.Compact(t.Context(), revisions[4]); err != nil {
		t.Fatal(err)
	}
	left, _ := server.Command(t, "KEYS", "{tallyman}:version:*").([]any)
	parts, _ := server.Command(t, "KEYS", "{tallyman}:history:*").([]any)
	if len(left) > 0 || len(parts) != 1 {
		t.Errorf("compaction left %v and %v, want the history of the last change", left, parts)
	}
}

// TestFormat2: processes of a version that knows no chunks find none in a store of their
// format.
func TestFormat2(t *testing.T) {
	server := redistest.Any(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	server.Command(t, "HSET", "{tallyman}:meta", "format", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, redis.Options{}, server.Addr)
	long := make([]byte, 100<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(long)
	for _, step := range []struct {
		format, chunks int
	}{{2, 0}, {3, 5}} {
		if step.format > s.Format() {
			if from, to, err := s.Upgrade(t.Context()); err != nil || from != 2 || to != 3 {
				t.Fatal(from, to, err)
			}
		}
		history1(t, s, [][][]string{{{"/a", string(long)}}})
		fields := fmt.Sprint(server.Command(t, "HKEYS", "{tallyman}:value:/a"))
		if n := strings.Count(fields, "~"); s.Format() != step.format || n < step.chunks || step.chunks == 0 && n > 0 {
			t.Errorf("format %d: a value of 100 KiB is in %s", s.Format(), fields)
		}
		if e, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{}); err != nil || string(e.Value.Body()) != string(long) {
			t.Errorf("format %d: the value is not as it was written: %v", step.format, err)
		}
	}
	server.Command(t, "ZADD", "{tallyman}:processes", time.Now().UnixMilli(), "somebody:2")
	if older, err := s.OlderProcess(t.Context()); err != nil || older != "somebody" {
		t.Errorf("a process that knows format 2 is no older one: %q, %v", older, err)
	}
}
