package redis_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
	"tallyman/storage/storagetest"
)

const flavor = "redis-server"

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // servers here are set up to be warned of
	if addr := os.Getenv(crashWriter); addr != "" {
		if err := writeUntilKilled(addr); err != nil {
			fmt.Println("error", err)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, o redis.Options, addrs ...string) *redis.Store {
	t.Helper()
	if len(addrs) > 0 {
		o.Client.Addrs = addrs
	}
	s, err := redis.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, storage.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

func put(t *testing.T, s *redis.Store, key, value string, expect int64) int64 {
	t.Helper()
	r, err := s.Commit(t.Context(), storage.Mutation{Key: key, Value: storage.Body([]byte(value)), Expect: expect})
	if err != nil || !r.Succeeded {
		t.Fatalf("put %s: %+v, %v", key, r, err)
	}
	return r.Revision
}

func get(t *testing.T, s *redis.Store, key string) string {
	t.Helper()
	entry, _, err := storage.GetEntry(t.Context(), s, key, storage.Read{})
	if err != nil {
		t.Fatal(err)
	}
	if entry == nil {
		return ""
	}
	return string(entry.Value.Body())
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not in 30 s: %v", what, err)
}

// TestCluster runs the contract on a Cluster, where every key must be declared
// and in one slot, with writes that wait for a replica.
func TestCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, "valkey-server")
	for name, o := range map[string]redis.Options{
		"plain":   {},
		"durable": {Replicas: 1, DurabilityTimeout: 10 * time.Second, Timeout: 20 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.Run(t, func(t *testing.T, now func() time.Time) storage.Backend {
				o := o
				o.Prefix, o.Now = rand.Text(), now
				return open(t, o, cluster.Addrs...)
			})
		})
	}
}

// TestSeparatePrefixes: registries that share a Redis do not see each other.
func TestSeparatePrefixes(t *testing.T) {
	addr := redistest.Any(t, flavor).Addr
	a, b := open(t, redis.Options{Prefix: "a"}, addr), open(t, redis.Options{Prefix: "b"}, addr)
	put(t, a, "/k", "a", 0)
	put(t, b, "/k", "b", 0)
	if got := get(t, a, "/k") + get(t, b, "/k"); got != "ab" {
		t.Errorf("the stores hold %q", got)
	}
	scan, err := a.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Count: true})
	if err != nil || scan.Count != 1 {
		t.Errorf("%+v, %v", scan, err)
	}
}

// TestTrim: the log stays within its bounds, and dropped entries take along the values that
// only they needed.
func TestTrim(t *testing.T) {
	server := redistest.Any(t, flavor)
	s := open(t, redis.Options{History: storage.HistoryBounds{MinAge: 1, MaxEntries: 10}}, server.Addr)
	first := put(t, s, "/a", "0", 0)
	revision := first
	for i := range 100 {
		revision = put(t, s, "/a", fmt.Sprint(i), revision)
	}
	length, _ := server.Command(t, "XLEN", "{tallyman}:log").(int64)
	parts, _ := server.Command(t, "HLEN", "{tallyman}:history:/a").(int64) // of each old value its body and its parts' names
	const bound = 11                                                       // a commit trims the excess that the one before found
	if length != bound || parts != 2*bound {
		t.Errorf("after 100 changes the log holds %d entries and %d old values, want %d", length, parts/2, bound)
	}
	if _, err := s.Log(t.Context(), storage.LogRequest{After: first}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from a dropped revision: %v", err)
	}
	w, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: w.Compacted}); err != nil || len(changes) != bound || string(changes[0].Previous.Value.Body()) != "88" {
		t.Errorf("Log from the start of the window: %d changes, %v", len(changes), err)
	}
}

// TestTrimByAge: changes older than MaxAge go with the next commits.
func TestTrimByAge(t *testing.T) {
	var now atomic.Int64
	now.Store(1e15)
	s := open(t, redis.Options{History: storage.HistoryBounds{MinAge: 1, MaxAge: time.Hour}, Now: func() time.Time { return time.UnixMicro(now.Load()) }}, redistest.Any(t, flavor).Addr)
	old := put(t, s, "/a", "0", 0)
	put(t, s, "/b", "0", 0)
	now.Add((2 * time.Hour).Microseconds())
	put(t, s, "/c", "0", 0)
	put(t, s, "/d", "0", 0)
	if _, err := s.Log(t.Context(), storage.LogRequest{After: old}); !errors.Is(err, storage.ErrCompacted) {
		t.Errorf("Log from two hours ago: %v", err)
	}
}

// TestStats: the store's own sizes are true.
func TestStats(t *testing.T) {
	s := open(t, redis.Options{}, redistest.Any(t, flavor).Addr)
	value := strings.Repeat("compressible ", 1000)
	revision := put(t, s, "/a", "gone", 0)
	put(t, s, "/b", value, 0)
	put(t, s, "/a", "a", revision)
	stats, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if stats.Objects != 2 || stats.LogEntries != 3 || stats.Bytes != int64(len(value)+1) {
		t.Errorf("%+v", stats)
	}
	if stats.StoredBytes <= 0 || stats.StoredBytes > stats.Bytes/10 {
		t.Errorf("%d bytes take %d", stats.Bytes, stats.StoredBytes)
	}
}

// TestCommands: the commands that a store uses are those whose cost a page
// bounds.
func TestCommands(t *testing.T) {
	server := redistest.Any(t, flavor)
	s := open(t, redis.Options{History: storage.HistoryBounds{MinAge: 1, MaxEntries: 5}}, server.Addr)
	revision := int64(0)
	for i := range 30 {
		revision = put(t, s, "/a", fmt.Sprint(i), revision)
		put(t, s, fmt.Sprintf("/k%d", i), "v", 0)
	}
	if _, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Limit: 3, Count: true, Revision: revision}); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Stats(t.Context()); err != nil {
		t.Fatal(err)
	}
	bounded := strings.Fields("auth client|setinfo client|list client|maint_notifications client|setname command config|get del eval eval_ro evalsha evalsha_ro exists get getrange hdel hello hget hincrby hkeys " +
		"hmget hset hvals info mget ping rename set strlen time unlink xadd xdel xlen xrange xread xrevrange zadd zcard zlexcount zrangebylex zrem zremrangebylex zremrangebyscore")
	for line := range strings.Lines(fmt.Sprint(server.Command(t, "INFO", "commandstats"))) {
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		if strings.HasPrefix(line, "cmdstat_") && !slices.Contains(bounded, name) {
			t.Errorf("the store uses %s", name)
		}
	}
}

// wire is a network between the store and Redis that a test meddles with.
type wire struct {
	target atomic.Pointer[string]
	mu     sync.Mutex
	conns  []net.Conn
	// dropReply is set to lose the answer to the next command that holds this.
	dropReply atomic.Pointer[string]
	dropped   atomic.Int64
}

func (w *wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	target := w.target.Load()
	c, err := d.DialContext(ctx, "tcp", *target)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.target.Load() != target { // cut has not seen this one
		return nil, errors.Join(errors.New("the network has changed"), c.Close())
	}
	w.conns = append(w.conns, c)
	return &wireConn{Conn: c, wire: w}, nil
}

// cut closes all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

type wireConn struct {
	net.Conn
	wire *wire
	drop atomic.Bool
}

func (c *wireConn) Write(p []byte) (int, error) {
	if text := c.wire.dropReply.Load(); text != nil && bytes.Contains(p, []byte(*text)) && c.wire.dropReply.CompareAndSwap(text, nil) {
		c.drop.Store(true)
	}
	return c.Conn.Write(p)
}

func (c *wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.drop.Load() && n > 0 {
		c.wire.dropped.Add(1)
		return 0, errors.Join(net.ErrClosed, c.Close())
	}
	return n, err
}

func (w *wire) options(target string, o redis.Options) redis.Options {
	w.target.Store(&target)
	o.Client.Addrs, o.Client.Dialer = []string{"redis:6379"}, w.dial
	return o
}

// TestLostAnswer: a commit whose answer is lost is tried again, and takes effect
// once: it neither fails on its own first try nor happens twice.
func TestLostAnswer(t *testing.T) {
	w := &wire{}
	s := open(t, w.options(redistest.Any(t, flavor).Addr, redis.Options{}))
	warm := put(t, s, "/warm", "x", 0) // the script is known to the server
	lose := func() {
		text := "evalsha"
		w.dropReply.Store(&text)
	}
	lose()
	created := put(t, s, "/a", "1", 0)
	lose()
	updated := put(t, s, "/a", "2", created)
	lose()
	if r, err := s.Commit(t.Context(), storage.Mutation{Key: "/a", Operation: storage.Delete, Expect: updated}); err != nil || !r.Succeeded {
		t.Fatalf("delete: %+v, %v", r, err)
	}
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: warm}); err != nil || len(changes) != 3 {
		t.Errorf("%d changes, %v, want 3", len(changes), err)
	}
	if w.dropped.Load() != 3 {
		t.Errorf("%d answers were lost, want 3", w.dropped.Load())
	}
}

// captureLog returns the log of the test.
func captureLog(t *testing.T) *syncBuffer {
	t.Helper()
	b := &syncBuffer{}
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(b, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })
	return b
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
