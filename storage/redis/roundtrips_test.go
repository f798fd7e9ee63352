package redis_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// hook is called with the number of commands of each round trip: a pipeline is one.
// hook is called with the number of commands that are sent, but for those that begin a connection: the client
// makes one when it likes.
type hook func(ctx context.Context, commands int)

// begins reports whether a command begins a connection.
func begins(cmd goredis.Cmder) bool { return cmd.Name() == "hello" || cmd.Name() == "client" }

// DialHook implements goredis.Hook.
func (hook) DialHook(next goredis.DialHook) goredis.DialHook { return next }

// ProcessHook implements goredis.Hook.
func (h hook) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		if !begins(cmd) {
			h(ctx, 1)
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements goredis.Hook.
func (h hook) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if len(cmds) > 0 && !begins(cmds[0]) {
			h(ctx, len(cmds))
		}
		return next(ctx, cmds)
	}
}

type countedKey struct{}

// TestRoundTrips: the number of round trips that each call takes.
func TestRoundTrips(t *testing.T) {
	s := open(t, redis.Options{}, redistest.Any(t, flavor).Addr)
	var trips atomic.Int64
	s.AddHook(hook(func(ctx context.Context, _ int) {
		if ctx.Value(countedKey{}) != nil { // and not the monitor's
			trips.Add(1)
		}
	}))
	ctx := context.WithValue(t.Context(), countedKey{}, true)
	commit := func(prefix string, n int) func() error {
		return func() error {
			var mutations []storage.Mutation
			for i := range n {
				mutations = append(mutations, storage.Mutation{
					Key: fmt.Sprint(prefix, i), Expect: storage.AnyRevision, Value: storage.Body([]byte("x")),
					Terms: []storage.TermChange{{Group: "g", Terms: []string{"red"}}},
				})
			}
			_, err := s.Commit(ctx, mutations...)
			return err
		}
	}
	start, err := s.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	completed := storage.FillRequest{Name: "/", Next: storage.IndexState{Version: "1", Complete: true}}
	if _, err := s.FillIndex(t.Context(), completed); err != nil {
		t.Fatal(err)
	}
	calls := []struct {
		name string
		call func() error
		want int64
	}{
		{"commit of one key", commit("/one", 1), 1},
		{"commit of five keys", commit("/five", 5), 1},
		{"commit of 64 keys", commit("/many", 64), 1},
		{"get of 10 keys", func() error {
			_, err := s.Get(ctx, storage.GetRequest{Keys: []string{"/one0", "/five0", "/five1", "/five2", "/five3", "/five4", "/many0", "/many1", "/many2", "/none"}})
			return err
		}, 1},
		{"scan by term, a page of 50", func() error {
			_, err := s.Scan(ctx, storage.ScanRequest{From: "/", To: "0", Term: "red", Limit: 50})
			return err
		}, 2},
		{"history of 50 changes", func() error {
			_, err := s.Log(ctx, storage.LogRequest{After: start.Current, Limit: 50})
			return err
		}, 3}, // the entries, and 64 values a command
		{"count of terms", func() error {
			_, err := s.CountTerms(ctx, []string{"red", "blue"})
			return err
		}, 1},
	}
	for _, call := range calls { // loads the scripts
		if err := call.call(); err != nil {
			t.Fatalf("%s: %v", call.name, err)
		}
	}
	for _, call := range calls {
		trips.Store(0)
		if err := call.call(); err != nil {
			t.Fatalf("%s: %v", call.name, err)
		}
		if got := trips.Load(); got != call.want {
			t.Errorf("%s takes %d round trips, want %d", call.name, got, call.want)
		}
	}
}
