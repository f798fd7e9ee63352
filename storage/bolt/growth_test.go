package bolt_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/storagetest"
)

func imageKey(i int) string { return fmt.Sprintf("/images/sha256:%064d", i) }

// put returns a mutation for storagetest.Fill.
func put(value string) func(i int) storage.Mutation {
	return func(i int) storage.Mutation {
		return storage.Mutation{Key: imageKey(i), Value: storage.Body([]byte(value))}
	}
}

// TestCountOnce: the pages of a list have the right number of remaining entries, which only
// the first page counts.
func TestCountOnce(t *testing.T) {
	s := open(t, bolt.Options{Path: filepath.Join(t.TempDir(), "images.db")})
	defer closeStore(t, s)
	const n = 3000
	storagetest.Fill(t, s, n, put("v"))
	for _, pinned := range []bool{true, false} {
		req, seen := storage.ScanRequest{From: "/images/", To: "/images0", Limit: 500, KeysOnly: true, Count: true}, int64(0)
		for more := true; more; {
			r, err := s.Scan(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			if r.Count != n-seen {
				t.Errorf("after %d entries %d are left, want %d", seen, r.Count, n-seen)
			}
			seen += int64(len(r.Entries))
			if more = r.More; more {
				req.From = r.Entries[len(r.Entries)-1].Key + "\x00"
			}
			if pinned {
				req.Revision = r.Revision
				commit(t, s, imageKey(n+int(seen))) // after that revision
			}
		}
		if pinned {
			for i := 500; i <= n; i += 500 {
				if _, err := s.Commit(t.Context(), storage.Mutation{Operation: storage.Delete, Key: imageKey(n + i), Expect: storage.AnyRevision}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// BenchmarkPagedList lists all keys in pages with the number of remaining entries. The time
// for each key is independent of the number of keys.
func BenchmarkPagedList(b *testing.B) {
	for _, n := range []int{15_000, 60_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, err := bolt.Open(bolt.Options{Path: filepath.Join(b.TempDir(), "images.db")})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			storagetest.Fill(b, s, n, put("v"))
			for b.Loop() {
				req := storage.ScanRequest{From: "/images/", To: "/images0", Limit: 500, KeysOnly: true, Count: true}
				for more := true; more; {
					r, err := s.Scan(b.Context(), req)
					if err != nil {
						b.Fatal(err)
					}
					if more = r.More; more {
						req.From = r.Entries[len(r.Entries)-1].Key + "\x00"
					}
				}
				_, _ = s.Commit(b.Context(), storage.Mutation{Key: "/x", Expect: storage.AnyRevision, Value: storage.Body([]byte("v"))}) // the next list is of another revision
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/key")
		})
	}
}

// written returns the number of bytes that this process has written.
func written(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "wchar: %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("/proc/self/io has no wchar")
	return 0
}

// TestCommitAfterDeletions: the bytes written by a commit do not grow with the number of
// deleted entries, and CompactFile shrinks the file.
func TestCommitAfterDeletions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "images.db")
	s := open(t, bolt.Options{Path: path, History: storage.HistoryBounds{MinAge: 1, MaxEntries: 1000}})
	perCommit := func(name string) int64 {
		before := written(t)
		const n = 20
		for i := range n {
			commit(t, s, fmt.Sprintf("/small/%s/%d", name, i))
		}
		return (written(t) - before) / n
	}
	fresh := perCommit("fresh")
	const n = 20_000
	storagetest.Fill(t, s, n, put(strings.Repeat("x", 1000)))
	full := perCommit("full")
	storagetest.Fill(t, s, n, func(i int) storage.Mutation {
		return storage.Mutation{Operation: storage.Delete, Key: imageKey(i), Expect: storage.AnyRevision}
	})
	if after := perCommit("after"); after > 3*max(fresh, full) {
		t.Errorf("a commit of one byte writes %d bytes, and wrote %d and %d before", after, fresh, full)
	}
	w, err := s.Window(t.Context())
	if err == nil {
		err = s.Compact(t.Context(), w.Current)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := bolt.CompactFile(path); !errors.Is(err, bolt.ErrLocked) {
		t.Errorf("a file that is open is compacted: %v", err)
	}
	closeStore(t, s)
	before, after, err := bolt.CompactFile(path)
	if err != nil || after > before/10 {
		t.Errorf("the file had %d bytes and has %d, %v", before, after, err)
	}
	s = open(t, bolt.Options{Path: path})
	defer closeStore(t, s)
	stats, err := s.Stats(t.Context())
	if err != nil || stats.Objects != 60 {
		t.Errorf("%d objects, %v", stats.Objects, err)
	}
	commit(t, s, "/more")
}
