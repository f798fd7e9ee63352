package migrate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/migrate"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

func openBolt(t *testing.T) *bolt.Store {
	t.Helper()
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "images.db")})
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, s)
	return s
}

func openRedis(t *testing.T) *redis.Store {
	t.Helper()
	s, err := redis.Open(t.Context(), redis.Options{Client: goredis.UniversalOptions{Addrs: []string{redistest.Start(t, "redis-server").Addr}}})
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, s)
	return s
}

func closeLater(t *testing.T, s storage.Backend) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Error(err)
		}
	})
}

func commit(t *testing.T, b storage.Backend, m storage.Mutation) int64 {
	t.Helper()
	r, err := b.Commit(t.Context(), m)
	if err != nil || !r.Succeeded {
		t.Fatalf("%+v: %+v, %v", m, r, err)
	}
	return r.Revision
}

func put(t *testing.T, b storage.Backend, key, value string, expect int64) int64 {
	t.Helper()
	return commit(t, b, storage.Mutation{Key: key, Value: storage.Body([]byte(value)), Expect: expect})
}

// merge joins both values, once.
func merge(_ string, from, to []byte) ([]byte, error) {
	if bytes.Contains(to, from) {
		return to, nil
	}
	return fmt.Appendf(nil, "%s+%s", to, from), nil
}

func value(t *testing.T, b storage.Backend, key string) string {
	t.Helper()
	e, _, err := storage.GetEntry(t.Context(), b, key, storage.Read{})
	if err != nil {
		t.Fatal(err)
	}
	if e == nil {
		return ""
	}
	return string(e.Value.Body())
}

func copyAll(t *testing.T, from migrate.Reader, to storage.Backend) *migrate.Report {
	t.Helper()
	before, err := to.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report, err := migrate.Copy(t.Context(), migrate.Options{From: from, To: to, Name: "test", Merge: merge})
	if err != nil {
		t.Fatal(err)
	}
	if err := migrate.Compare(t.Context(), from, to, merge, before.Current, report); err != nil {
		t.Fatal(err)
	}
	return report
}

// TestCopy: both ways, keys of one side are copied; keys of both are merged; a second copy
// brings only later changes, deletions among them; and revisions go on above the source's.
func TestCopy(t *testing.T) {
	for name, open := range map[string]func(*testing.T) (from, to storage.Backend){
		"bolt to redis": func(t *testing.T) (storage.Backend, storage.Backend) { return openBolt(t), openRedis(t) },
		"redis to bolt": func(t *testing.T) (storage.Backend, storage.Backend) { return openRedis(t), openBolt(t) },
	} {
		t.Run(name, func(t *testing.T) {
			from, to := open(t)
			revisions := map[string]int64{}
			for i := range 450 {
				key := fmt.Sprintf("/images/%03d", i)
				revisions[key] = put(t, from, key, "source", 0)
			}
			put(t, to, "/images/007", "target", 0)
			put(t, to, "/images/only", "target", 0)
			if err := from.Advance(t.Context(), revisions["/images/449"]+1e12); err != nil { // its clock was ahead
				t.Fatal(err)
			}
			report := copyAll(t, from, to)
			if report.Created.Load() != 449 || report.Merged.Load() != 1 || report.Compared != 450 || report.Missing != 0 {
				t.Errorf("%d created, %d merged, %d compared, %d missing", report.Created.Load(), report.Merged.Load(), report.Compared, report.Missing)
			}
			if got := value(t, to, "/images/007") + " " + value(t, to, "/images/only"); got != "target+source target" {
				t.Errorf("what was in the target is now %q", got)
			}
			source, err := from.Window(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if next := put(t, to, "/images/next", "target", 0); next <= source.Current {
				t.Errorf("the target goes on at %d, the source was at %d", next, source.Current)
			}
			put(t, from, "/images/001", "changed", revisions["/images/001"])
			commit(t, from, storage.Mutation{Key: "/images/002", Expect: revisions["/images/002"], Operation: storage.Delete})
			report = copyAll(t, from, to)
			if report.Merged.Load() != 1 || report.Deleted.Load() != 1 || report.Seen() != 1 || report.Missing != 0 {
				t.Errorf("again: %d merged, %d deleted, %d seen, %d missing", report.Merged.Load(), report.Deleted.Load(), report.Seen(), report.Missing)
			}
			if got := value(t, to, "/images/001") + " " + value(t, to, "/images/002"); got != "changed " {
				t.Errorf("after the changes: %q", got)
			}
		})
	}
}

// interrupted is a target that fails after some commits.
type interrupted struct {
	storage.Backend
	left atomic.Int64
}

func (i *interrupted) Commit(ctx context.Context, m ...storage.Mutation) (*storage.CommitResult, error) {
	if i.left.Add(-1) < 0 && !strings.HasPrefix(m[0].Key, "/transfers/") {
		return nil, errors.New("unplugged")
	}
	return i.Backend.Commit(ctx, m...)
}

// TestResume: a copy that was broken off goes on where it stopped.
func TestResume(t *testing.T) {
	from, to := openBolt(t), openBolt(t)
	for i := range 1000 {
		put(t, from, fmt.Sprintf("/images/%04d", i), "source", 0)
	}
	target := &interrupted{Backend: to}
	target.left.Store(500)
	_, err := migrate.Copy(t.Context(), migrate.Options{From: from, To: target, Name: "test", Merge: merge})
	if err == nil || !strings.Contains(err.Error(), "unplugged") {
		t.Fatalf("the first copy ended with %v", err)
	}
	report := copyAll(t, from, to)
	if seen := report.Seen(); seen >= 1000 || report.Missing != 0 || report.Compared != 1000 {
		t.Errorf("the second copy went over %d, %d missing of %d", seen, report.Missing, report.Compared)
	}
}

// TestLostPlace: a copy whose place in the log is gone goes over everything again.
func TestLostPlace(t *testing.T) {
	from, to := openBolt(t), openBolt(t)
	first := put(t, from, "/images/a", "1", 0)
	copyAll(t, from, to)
	second := put(t, from, "/images/a", "2", first)
	put(t, from, "/images/b", "1", 0)
	w, err := from.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Compact(t.Context(), w.Current); err != nil {
		t.Fatal(err)
	}
	if report := copyAll(t, from, to); report.Missing != 0 || value(t, to, "/images/a") != "1+2" || value(t, to, "/images/b") != "1" {
		t.Errorf("%d missing, a is %q at %d", report.Missing, value(t, to, "/images/a"), second)
	}
}

// TestRestoredSource: a source that was restored from a copy older than the target's
// position is gone over again.
func TestRestoredSource(t *testing.T) {
	from, to := openBolt(t), openBolt(t)
	if err := from.Advance(t.Context(), time.Now().Add(24*time.Hour).UnixMicro()); err != nil {
		t.Fatal(err)
	}
	put(t, from, "/images/a", "1", 0)
	copyAll(t, from, to)
	restored := openBolt(t)
	put(t, restored, "/images/b", "1", 0)
	if report := copyAll(t, restored, to); report.Missing != 0 || value(t, to, "/images/b") != "1" {
		t.Errorf("%d missing, b is %q", report.Missing, value(t, to, "/images/b"))
	}
}

// meddling is a source in which things change while it is read.
type meddling struct {
	storage.Backend
	meddle func()
}

func (m *meddling) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	result, err := m.Backend.Scan(ctx, req)
	if m.meddle != nil && !req.KeysOnly {
		meddle := m.meddle
		m.meddle = nil
		meddle()
	}
	return result, err
}

// TestChangesWhileCopying: keys that change twice during a copy, in the part it has read and
// in the part it has not, have their last value; nothing that was deleted comes back.
func TestChangesWhileCopying(t *testing.T) {
	from, to := openBolt(t), openRedis(t)
	revisions := map[string]int64{}
	for i := range 400 {
		key := fmt.Sprintf("/images/%03d", i)
		revisions[key] = put(t, from, key, "first", 0)
	}
	source := &meddling{Backend: from, meddle: func() {
		for _, key := range []string{"/images/001", "/images/399"} {
			revisions[key] = put(t, from, key, "first second", revisions[key])
			revisions[key] = put(t, from, key, "third", revisions[key])
		}
		for _, key := range []string{"/images/002", "/images/398"} {
			commit(t, from, storage.Mutation{Key: key, Expect: revisions[key], Operation: storage.Delete})
		}
		put(t, from, "/images/fresh", "first", 0)
	}}
	report := copyAll(t, source, to)
	if report.Missing != 0 || report.Compared != 399 {
		t.Errorf("%d missing of %d", report.Missing, report.Compared)
	}
	for key, want := range map[string]string{"/images/001": "third", "/images/399": "third", "/images/002": "", "/images/398": "", "/images/fresh": "first"} {
		if got := value(t, to, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

// TestFollow: changes while a copy follows are copied, until the source closes.
func TestFollow(t *testing.T) {
	to := openRedis(t)
	path := filepath.Join(t.TempDir(), "served.db")
	served, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	put(t, served, "/images/a", "1", 0)
	attached, err := bolt.Attach(path)
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := migrate.Copy(t.Context(), migrate.Options{From: attached, To: to, Name: "test", Merge: merge, Follow: t.Context()})
		ended <- err
	}()
	awaitValue(t, to, "/images/a", "1")
	revision := put(t, served, "/images/b", "1", 0)
	awaitValue(t, to, "/images/b", "1")
	commit(t, served, storage.Mutation{Key: "/images/b", Expect: revision, Operation: storage.Delete})
	awaitValue(t, to, "/images/b", "")
	if err := served.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, migrate.ErrSourceClosed) {
		t.Errorf("the copy ended with %v", err)
	}
}

func awaitValue(t *testing.T, b storage.Backend, key, want string) {
	t.Helper()
	for range 500 {
		if value(t, b, key) == want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s is %q, want %q", key, value(t, b, key), want)
}

// TestExport: an export imported elsewhere is the same, byte for byte; one that is
// damaged imports nothing.
func TestExport(t *testing.T) {
	from := openBolt(t)
	for i := range 450 {
		put(t, from, fmt.Sprintf("/images/%03d", i), fmt.Sprintf("{\"a\":\"<%d> \\u003c\"}\n", i), 0)
	}
	const bare = `{"repository":"a"}` // as referrers are stored
	put(t, from, "/referrers/a", bare, 0)
	var out bytes.Buffer
	report, err := migrate.Export(t.Context(), from, &out, nil)
	if err != nil || report.Seen() != 451 {
		t.Fatalf("%d exported, %v", report.Seen(), err)
	}
	text := out.String()
	lines := strings.SplitAfter(text, "\n")
	for name, test := range map[string]struct{ text, want string }{
		"empty":         {"", "the file is empty"},
		"foreign":       {"{}\n", "line 1: the file is not an export"},
		"cut short":     {strings.Join(lines[:300], ""), "the file is cut short after 299 entries"},
		"cut in a line": {text[:1000], "line"},
		"changed":       {strings.Replace(text, "<7>", "<8>", 1), "checksum"},
		"entry gone":    {strings.Replace(text, lines[5], "", 1), "450 entries, its end says 451"},
		"more":          {text + "{}\n", "goes on after its end"},
		"no value":      {lines[0] + "{\"key\":\"/images/a\"}\n", "line 2: want a key and a value"},
	} {
		to := openBolt(t)
		if _, err := migrate.Import(t.Context(), strings.NewReader(test.text), migrate.Options{To: to, Merge: merge}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if stats, err := to.Stats(t.Context()); err != nil || stats.Objects != 0 {
			t.Errorf("%s: %d objects were imported, %v", name, stats.Objects, err)
		}
	}
	to, file := openRedis(t), strings.NewReader(text)
	report, err = migrate.Import(t.Context(), file, migrate.Options{To: to, Merge: merge})
	if err != nil {
		t.Fatal(err)
	}
	if err := migrate.CompareFile(t.Context(), file, to, merge, report); err != nil || report.Created.Load() != 451 || report.Compared != 451 || report.Missing != 0 {
		t.Errorf("%d created, %d compared, %d missing, %v", report.Created.Load(), report.Compared, report.Missing, err)
	}
	if got := value(t, to, "/referrers/a"); got != bare {
		t.Errorf("a value without a final newline is imported as %q", got)
	}
	var again bytes.Buffer
	if _, err := migrate.Export(t.Context(), to, &again, nil); err != nil {
		t.Fatal(err)
	}
	if a, b := values(text), values(again.String()); a != b {
		t.Error("an export of the import has other values")
	}
}

// values are the values of an export without their revisions.
func values(text string) string {
	var all strings.Builder
	for line := range strings.Lines(text) {
		if _, v, ok := strings.Cut(line, `"value":`); ok {
			all.WriteString(v)
		}
	}
	return all.String()
}

// TestMissing: Compare finds missing keys.
func TestMissing(t *testing.T) {
	from, to := openBolt(t), openBolt(t)
	put(t, from, "/images/a", "1", 0)
	put(t, from, "/images/b", "1", 0)
	put(t, from, "/images/c", "1", 0)
	put(t, to, "/images/b", "other", 0)
	copied := put(t, to, "/images/c", "1", 0)
	w, err := to.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	commit(t, to, storage.Mutation{Key: "/images/c", Expect: copied, Operation: storage.Delete}) // by a client, after the copy
	report := &migrate.Report{}
	if err := migrate.Compare(t.Context(), from, to, merge, w.Current, report); err != nil || report.Missing != 2 || report.Compared != 2 {
		t.Errorf("%d missing of %d, %v", report.Missing, report.Compared, err)
	}
}

// FuzzImport: a file of any content is imported whole or refused.
func FuzzImport(f *testing.F) {
	f.Add("{\"format\":\"tallyman-metadata/1\",\"revision\":5}\n{\"key\":\"/a\",\"value\":{}}\n{\"entries\":1}\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		report := &migrate.Report{}
		_ = migrate.CompareFile(t.Context(), strings.NewReader(text), nothing{}, merge, report)
	})
}

// nothing is a store without content.
type nothing struct{ storage.Backend }

func (nothing) Get(context.Context, storage.GetRequest) (*storage.GetResult, error) {
	return &storage.GetResult{Entries: make([]*storage.Entry, 1), Revision: 1}, nil
}
