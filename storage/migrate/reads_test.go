package migrate_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"tallyman/storage"
	"tallyman/storage/migrate"
)

// counted counts the keys of each read of a target.
type counted struct {
	storage.Backend
	mu    sync.Mutex
	reads []int
}

func (c *counted) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads = append(c.reads, len(req.Keys))
	return c.Backend.Get(ctx, req)
}

// want wants that the keys were read in few reads, none of them of more than most keys.
func (c *counted) want(t *testing.T, step string, keys, reads, most int) {
	t.Helper()
	sum := 0
	for _, n := range c.reads {
		sum += n
	}
	if sum < keys || len(c.reads) > reads || slices.Max(c.reads) > most {
		t.Errorf("%s: reads of %d keys, want %d in %d reads of at most %d", step, c.reads, keys, reads, most)
	}
	c.reads = nil
}

// TestReadsInPages: a copy and the comparison look up many keys at a time in the target, and fewer if they are large.
func TestReadsInPages(t *testing.T) {
	for name, test := range map[string]struct{ keys, size, reads, most int }{
		"small": {450, 10, 4, 200}, "large": {10, 1 << 20, 6, 5},
	} {
		t.Run(name, func(t *testing.T) {
			from := openBolt(t)
			for i := range test.keys {
				put(t, from, fmt.Sprintf("/images/%03d", i), `"`+strings.Repeat("x", test.size)+"\"\n", 0)
			}
			to := &counted{Backend: openBolt(t)}
			report := copyAll(t, from, to)
			to.want(t, "copy and comparison", 2*test.keys, 2*test.reads, test.most)
			if report.Created.Load() != int64(test.keys) || report.Compared != int64(test.keys) || report.Missing != 0 {
				t.Errorf("%d created, %d compared, %d missing", report.Created.Load(), report.Compared, report.Missing)
			}
			var out bytes.Buffer
			if _, err := migrate.Export(t.Context(), from, &out, nil); err != nil {
				t.Fatal(err)
			}
			file := strings.NewReader(out.String())
			to = &counted{Backend: openBolt(t)}
			report, err := migrate.Import(t.Context(), file, migrate.Options{To: to, Merge: merge})
			if err != nil {
				t.Fatal(err)
			}
			to.want(t, "import", test.keys, test.reads, test.most)
			if err := migrate.CompareFile(t.Context(), file, to, merge, report); err != nil || report.Created.Load() != int64(test.keys) || report.Missing != 0 {
				t.Errorf("%d created, %d missing, %v", report.Created.Load(), report.Missing, err)
			}
			to.want(t, "comparison with a file", test.keys, test.reads, test.most)
		})
	}
}
