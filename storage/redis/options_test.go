package redis_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// TestRefusals: a fault that waiting will not mend fails at start, with the remedy.
func TestRefusals(t *testing.T) {
	server := redistest.Start(t, flavor)
	server.Command(t, "HSET", "{future}:meta", "format", "99", "revision", "1", "compacted", "0", "base", "1", "id", "x")
	server.Command(t, "ACL", "SETUSER", "reader", "on", ">reader-secret", "~{tallyman}:*", "+@read", "+@connection", "+info", "+eval", "+evalsha")
	server.Command(t, "ACL", "SETUSER", "elsewhere", "on", ">elsewhere-secret", "~other:*", "+@all")
	locked := redistest.Start(t, flavor, "--requirepass", "right-secret")
	node := redistest.Start(t, flavor, "--cluster-enabled", "yes")
	user := func(name string) redis.Options {
		var o redis.Options
		o.Client.Username, o.Client.Password = name, name+"-secret"
		return o
	}
	for name, test := range map[string]struct {
		addr string
		o    redis.Options
		want string
	}{
		"newer format":   {server.Addr, redis.Options{Prefix: "future"}, "it has format 99, this version reads and writes formats 1 to 3"},
		"no password":    {locked.Addr, redis.Options{}, "NOAUTH"},
		"wrong password": {locked.Addr, user("default"), "WRONGPASS"},
		"reader":         {server.Addr, user("reader"), "lacks permissions: want ~{tallyman}:* +@read +@write"},
		"other keys":     {server.Addr, user("elsewhere"), "lacks permissions"},
		"no WAITAOF":     {redistest.Start(t, flavor, redistest.Durable...).Addr, redis.Options{AOF: true}, "the server has no WAITAOF"},
		"no AOF":         {redistest.Start(t, "valkey-server").Addr, redis.Options{AOF: true}, "set appendonly yes"},
		"cluster node":   {node.Addr, redis.Options{}, "part of a Cluster"},
		"no cluster":     {server.Addr, redis.Options{Client: goredis.UniversalOptions{IsClusterMode: true}}, "the servers are no Cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			test.o.Client.Addrs = []string{test.addr}
			s, err := redis.Open(t.Context(), test.o)
			if err == nil {
				_ = s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if err != nil && strings.Contains(err.Error(), "-secret") {
				t.Errorf("the error has the password in it: %v", err)
			}
		})
	}
}

// TestDocumentedPermissions: the user that docs/redis.md tells to make may do
// everything.
func TestDocumentedPermissions(t *testing.T) {
	doc, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, _ := strings.Cut(string(doc), "A Redis user with `")
	rules, _, ok := strings.Cut(rules, "`")
	if !ok {
		t.Fatal("docs/redis.md does not say what user to make")
	}
	server := redistest.Start(t, "valkey-server", redistest.Durable...)
	replica := redistest.Start(t, "valkey-server")
	redistest.Replicate(t, server, replica)
	command := []any{"ACL", "SETUSER", "tallyman", "on", ">secret", "+waitaof"}
	for _, rule := range strings.Fields(rules) {
		command = append(command, rule)
	}
	server.Command(t, command...)
	log := captureLog(t)
	o := redis.Options{Replicas: 1, DurabilityTimeout: 10 * time.Second, Timeout: 20 * time.Second}
	o.Client.Username, o.Client.Password = "tallyman", "secret"
	s := open(t, o, server.Addr)
	revision := put(t, s, "/a", "1", 0)
	put(t, s, "/a", "2", revision)
	if changes, err := s.Log(t.Context(), storage.LogRequest{After: revision}); err != nil || len(changes) != 1 {
		t.Errorf("%d changes, %v", len(changes), err)
	}
	if _, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0", Count: true}); err != nil {
		t.Error(err)
	}
	lock, err := s.Lock(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	lock.Unlock()
	if err := errors.Join(s.Compact(t.Context(), revision), s.Advance(t.Context(), revision)); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "NOPERM") || strings.Contains(log.String(), "not permitted") {
		t.Errorf("logged %s", log)
	}
}

// TestValidate: options that make no sense are refused before anything is tried.
func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*redis.Options){
		"an address is required": func(o *redis.Options) { o.Client.Addrs = nil },
		"braces are reserved":    func(o *redis.Options) { o.Prefix = "{x}" },
		"entries":                func(o *redis.Options) { o.History.MaxEntries = -1 },
		"age":                    func(o *redis.Options) { o.History.MaxAge = -1 },
		"cache":                  func(o *redis.Options) { o.CacheBytes = -1 },
		"replicas":               func(o *redis.Options) { o.Replicas = -1 },
		"durability timeout":     func(o *redis.Options) { o.DurabilityTimeout = -1 },
		"not shorter":            func(o *redis.Options) { o.DurabilityTimeout = 5 * time.Second },
	} {
		var o redis.Options
		o.Client.Addrs = []string{"127.0.0.1:1"}
		change(&o)
		if _, err := redis.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// TestFormatChanges: a store that a newer version converts while this one runs is
// left alone from then on.
func TestFormatChanges(t *testing.T) {
	server := redistest.Any(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	revision := put(t, s, "/a", "1", 0)
	server.Command(t, "HSET", "{tallyman}:meta", "format", "99")
	_, err := s.Commit(t.Context(), storage.Mutation{Key: "/a", Value: storage.Body([]byte("2")), Expect: revision})
	if !errors.Is(err, redis.ErrFormat) {
		t.Errorf("a commit in another format: %v", err)
	}
	if _, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{}); !errors.Is(err, redis.ErrFormat) {
		t.Errorf("a read of another format: %v", err)
	}
}

// TestWarnings: settings with which Redis loses Images are warned of.
func TestWarnings(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		want  string
		quiet bool
	}{
		"evicting":       {append([]string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}, redistest.Durable...), "EVICTS KEYS", false},
		"no persistence": {nil, "writes nothing to disk", false},
		"snapshots only": {[]string{"--save", "60 1000"}, "saves snapshots only", false},
		"well set up":    {redistest.Durable, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			log := captureLog(t)
			open(t, redis.Options{}, redistest.Start(t, flavor, test.args...).Addr)
			time.Sleep(10 * time.Millisecond)
			if got := log.String(); !strings.Contains(got, test.want) || (test.quiet && strings.Contains(got, "WARN")) {
				t.Errorf("logged %q, want %q", got, test.want)
			}
		})
	}
}

// TestSecretsStayOut: neither errors nor the log have the password.
func TestSecretsStayOut(t *testing.T) {
	log := captureLog(t)
	server := redistest.Start(t, flavor, "--requirepass", "hunter2-secret")
	var o redis.Options
	o.Client.Password = "hunter2-secret"
	s := open(t, o, server.Addr)
	put(t, s, "/a", "1", 0)
	server.Kill()
	eventually(t, "the outage is logged", func() error {
		if !strings.Contains(log.String(), "not available") {
			return errors.New("not yet")
		}
		return nil
	})
	_, _, err := storage.GetEntry(t.Context(), s, "/a", storage.Read{})
	if err == nil || strings.Contains(err.Error()+log.String(), "hunter2-secret") {
		t.Errorf("%v\n%s", err, log)
	}
}
