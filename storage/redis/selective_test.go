package redis_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// TestSelectiveScan: a scan by a term that 20 of 200 000 entries carry reads few keys.
func TestSelectiveScan(t *testing.T) {
	const all, hits, most = 200_000, 20, 100
	server := redistest.Start(t, flavor)
	s := open(t, redis.Options{History: storage.HistoryBounds{MinAge: 1, MaxEntries: 10}}, server.Addr)
	if _, err := s.FillIndex(t.Context(), storage.FillRequest{Name: "/images/", Next: storage.IndexState{Version: "1", Complete: true}}); err != nil {
		t.Fatal(err)
	}
	seedMany(t, s, all, hits)
	lookups := func() int64 {
		n := int64(0)
		for line := range strings.Lines(server.Command(t, "INFO", "stats").(string)) {
			for _, name := range []string{"keyspace_hits:", "keyspace_misses:"} {
				if value, ok := strings.CutPrefix(strings.TrimSpace(line), name); ok {
					n += parse(t, value)
				}
			}
		}
		return n
	}
	eventually(t, "the history is within its bounds", func() error {
		if stats, err := s.Stats(t.Context()); err != nil || stats.LogEntries > storage.MaxMutations {
			return fmt.Errorf("%d changes, %w", stats.LogEntries, err)
		}
		return nil
	})
	before := lookups()
	r, err := s.Scan(t.Context(), storage.ScanRequest{From: "/images/", To: "/images0", Term: "rare", Limit: 500})
	if err != nil || len(r.Entries) != hits {
		t.Fatalf("%d entries, %v", len(r.Entries), err)
	}
	read := lookups() - before
	t.Logf("%d lookups of keys for %d of %d entries", read, hits, all)
	if read >= most {
		t.Errorf("the scan looked up %d keys, want fewer than %d", read, most)
	}
}

// seedMany writes all entries, of which some, evenly spread, carry the term rare.
func seedMany(t *testing.T, s *redis.Store, all, some int) {
	t.Helper()
	const workers = 4
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for start := w * storage.MaxMutations; start < all; start += workers * storage.MaxMutations {
				var mutations []storage.Mutation
				for i := start; i < min(start+storage.MaxMutations, all); i++ {
					terms := []string{"common", fmt.Sprint("group", i%100)}
					if i%(all/some) == 0 {
						terms = append(terms, "rare")
					}
					mutations = append(mutations, storage.Mutation{
						Key: fmt.Sprintf("/images/sha256:%064d", i), Value: storage.Body([]byte("x")),
						Terms: []storage.TermChange{{Group: "image", Terms: terms}},
					})
				}
				if r, err := s.Commit(t.Context(), mutations...); err != nil || !r.Succeeded {
					t.Errorf("%+v, %v", r, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func parse(t *testing.T, digits string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
