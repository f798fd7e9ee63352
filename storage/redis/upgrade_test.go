package redis_test

import (
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// TestOlderProcess: a process that does not know the newest format is noticed, by its
// lease or by its connection. Others are not taken for one.
func TestOlderProcess(t *testing.T) {
	server := redistest.Start(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	open(t, redis.Options{}, server.Addr)
	client := func(name string, call func(*goredis.Client) error) *goredis.Client {
		t.Helper()
		c := goredis.NewClient(&goredis.Options{Addr: server.Addr, ClientName: name})
		if err := call(c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	script := func(c *goredis.Client) error { return c.Eval(t.Context(), "return 1", nil).Err() }
	ping := func(c *goredis.Client) error { return c.Ping(t.Context()).Err() }
	expect := func(what string, older bool) {
		t.Helper()
		got, err := s.OlderProcess(t.Context())
		if err != nil || (got != "") != older {
			t.Errorf("%s: found %q, %v", what, got, err)
		}
	}
	expect("processes of this version", false)
	cache := client("", ping)
	expect("a client that runs no scripts", false)
	old := client("", script)
	expect("a client that runs scripts and has no name", true)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is gone", func() error {
		_, err := s.OlderProcess(t.Context())
		return err
	})
	named := client("another-application", ping)
	expect("a client with another name that runs no scripts", false)
	for _, c := range []*goredis.Client{cache, named} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	server.Command(t, "ZADD", "{tallyman}:processes", time.Now().UnixMilli(), "somebody:1")
	expect("a lease of a process that knows format 1 only", true)
}
