package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

const defaultTimeout = 5 * time.Second

// Options configures Open.
type Options struct {
	// Client says where Redis is and how to connect. Reads always go to the
	// master: the options that send them to replicas are ignored. Required.
	Client goredis.UniversalOptions
	// Prefix starts every key; registries with different prefixes share one
	// Redis. Empty means "tallyman".
	Prefix string
	// History bounds the history.
	History storage.HistoryBounds
	// CacheBytes bounds the values kept in this process, uncompressed. They
	// are checked against the store at each read. 0 means none.
	CacheBytes int64
	// Replicas is how many replicas must have a commit before it is
	// acknowledged (WAIT). 0 means not to wait.
	Replicas int
	// AOF makes commits wait until the append-only file is on disk (WAITAOF,
	// Redis 7.2). With Replicas, that of so many replicas too.
	AOF bool
	// DurabilityTimeout bounds that wait. 0 means one second. A commit that
	// runs into it is reported as failed, although it may last.
	DurabilityTimeout time.Duration
	// Timeout bounds each call. 0 means five seconds.
	Timeout time.Duration
	// OnLoss is called, in a goroutine of its own, when content that was there
	// is found missing. The caller is to rebuild it. May be nil.
	OnLoss func(reason string)
	// LossGrace is the time for which a server without acknowledged revisions is not believed,
	// as it may be an old master that has come back and is yet to be told that there is a new
	// one. After that it counts as a loss. 0 means ten seconds.
	LossGrace time.Duration
	// Now is the clock behind revisions. Nil means the server's.
	Now func() time.Time
}

// Validate returns an error if o is invalid.
func (o *Options) Validate() error {
	switch {
	case len(o.Client.Addrs) == 0:
		return errors.New("redis: an address is required")
	case strings.ContainsAny(o.Prefix, "{}\x00"):
		return fmt.Errorf("redis: prefix %q: braces are reserved for the hash tag", o.Prefix)
	case o.CacheBytes < 0:
		return fmt.Errorf("redis: cache: %d is negative", o.CacheBytes)
	case o.Replicas < 0:
		return fmt.Errorf("redis: replicas: %d is negative", o.Replicas)
	case o.DurabilityTimeout < 0:
		return fmt.Errorf("redis: durability timeout: %s is negative", o.DurabilityTimeout)
	}
	if timeout := cmp.Or(o.Timeout, defaultTimeout); o.DurabilityTimeout >= timeout {
		return fmt.Errorf("redis: durability timeout: %s is not shorter than the timeout of a call, %s", o.DurabilityTimeout, timeout)
	}
	if err := o.History.Validate(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	return nil
}

func (o *Options) setDefaults() {
	if o.Prefix == "" {
		o.Prefix = "tallyman"
	}
	o.History.SetDefaults()
	if o.Client.PoolSize == 0 {
		o.Client.PoolSize = 10 * runtime.GOMAXPROCS(0) // as go-redis
	}
	if o.DurabilityTimeout == 0 {
		o.DurabilityTimeout = time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.LossGrace == 0 {
		o.LossGrace = 10 * time.Second
	}
	if o.OnLoss == nil {
		o.OnLoss = func(string) {}
	}
	o.Client.ContextTimeoutEnabled = true
	o.Client.ReadOnly, o.Client.RouteByLatency, o.Client.RouteRandomly = false, false, false
}

// refusal is an answer of Redis that no waiting will change: wrong password,
// wrong version, missing permissions.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func isRefusal(err error) bool {
	var r refusal
	return errors.As(err, &r) || errors.Is(err, ErrFormat)
}

// refusals are the errors of Redis that mean it.
var refusals = []string{"NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "ERR AUTH", "ERR Client sent AUTH", "ERR unknown command", "ERR invalid DB index", "ERR DB index"}

func classify(err error) error {
	if err == nil {
		return nil
	}
	var untrusted *tls.CertificateVerificationError
	if errors.As(err, &untrusted) {
		return refusal{err}
	}
	for _, code := range refusals {
		if strings.Contains(err.Error(), code) {
			return refusal{err}
		}
	}
	return err
}

// check refuses a server that cannot serve, and warns of settings under which acknowledged
// writes can be lost.
func (s *Store) check(ctx context.Context) error {
	node, err := s.node(ctx)
	if err != nil && strings.Contains(err.Error(), "cluster support disabled") {
		return refusal{errors.New("the servers are no Cluster: list one address under redis.addrs, or Sentinels and redis.mastername")}
	}
	if err != nil {
		return classify(err)
	}
	text, err := node.Info(ctx, "server", "replication", "memory", "persistence", "cluster").Result()
	if lacksPermission(err) {
		slog.Warn("redis: INFO is not permitted, so the server's version and settings are not checked")
		return s.checkPermissions(ctx, node)
	}
	if err != nil {
		return classify(err)
	}
	info := parseInfo(text)
	if err := checkVersion(info); err != nil {
		return err
	}
	if info["role"] == "slave" {
		s.leaveReplica(ctx)
		return errors.New("the server is a replica: give the address of the master, or Sentinel's with redis.mastername")
	}
	if err := s.checkCluster(ctx, node, info["cluster_enabled"] == "1"); err != nil {
		return err
	}
	if s.opts.AOF && info["aof_enabled"] == "0" {
		return refusal{errors.New("imageapi.store.redis.aof is set, but the server has no append-only file: set appendonly yes")}
	}
	s.warn(ctx, node, info)
	return s.checkPermissions(ctx, node)
}

// leaveReplica closes pooled connections to a demoted master. The address may belong to
// the new master.
func (s *Store) leaveReplica(ctx context.Context) {
	for _, client := range []goredis.UniversalClient{s.client, s.own} {
		_, _ = fromMaster(func() ([]any, error) {
			return unlockScript.Run(ctx, client, []string{s.key("check:string")}, "").Slice()
		})
	}
}

// checkCluster wants a Cluster to be known as one, and to be whole.
func (s *Store) checkCluster(ctx context.Context, node goredis.UniversalClient, enabled bool) error {
	_, cluster := s.client.(*goredis.ClusterClient)
	switch {
	case enabled && !cluster:
		return refusal{errors.New("the server is part of a Cluster: list more than one of its nodes under redis.addrs")}
	case !enabled:
		return nil
	}
	state, err := node.ClusterInfo(ctx).Result()
	if err != nil {
		return classify(err)
	}
	if !strings.Contains(state, "cluster_state:ok") {
		return errors.New("the Cluster is not whole: CLUSTER INFO does not say cluster_state:ok")
	}
	return nil
}

func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// checkVersion wants read-only scripts, which came with Redis 7.0. Valkey tells
// the version of Redis that it is compatible with as redis_version.
func checkVersion(info map[string]string) error {
	version := info["redis_version"]
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err == nil && n < 7 {
		return refusal{fmt.Errorf("the server is Redis %s: want 7.0 or newer, or Valkey", version)}
	}
	return nil
}

// warn logs settings with which Redis may lose Images. INFO has the first; the
// second takes CONFIG GET, which managed services refuse.
func (s *Store) warn(ctx context.Context, node goredis.UniversalClient, info map[string]string) {
	if policy := info["maxmemory_policy"]; strings.HasPrefix(policy, "allkeys-") && info["maxmemory"] != "0" {
		slog.Warn("redis: THE SERVER EVICTS KEYS when its memory is full: images will be lost, and additions of clients cannot be derived again; set maxmemory-policy noeviction",
			"maxmemory-policy", policy, "maxmemory", info["maxmemory"])
	}
	if info["aof_enabled"] != "0" {
		return
	}
	if save, err := node.ConfigGet(ctx, "save").Result(); err == nil && save["save"] == "" {
		slog.Warn("redis: the server writes nothing to disk: a restart of it loses all images, and additions of clients cannot be derived again; set appendonly yes")
	} else if err == nil {
		slog.Warn("redis: the server saves snapshots only: a crash of it loses all changes after the last one; set appendonly yes", "save", save["save"])
	}
}

// checkPermissions runs each command once.
func (s *Store) checkPermissions(ctx context.Context, node goredis.UniversalClient) error {
	var keys []string
	for _, name := range []string{"hash", "set", "stream", "string", "renamed"} {
		keys = append(keys, s.key("check:"+name))
	}
	err := permissionsScript.Run(ctx, s.client, keys).Err()
	if refusesWrites(err) || isFull(err) {
		return nil // it is read all the same
	}
	if err == nil {
		err = s.checkWait(ctx, node)
	}
	if lacksPermission(err) {
		return refusal{fmt.Errorf("the Redis user lacks permissions: want ~{%s}:* +@read +@write +@scripting +@connection +time +info +config|get +cluster +wait: %w", s.opts.Prefix, err)}
	}
	return classify(err)
}

// lacksPermission knows the words for it, on a command and inside a script.
func lacksPermission(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return strings.Contains(text, "NOPERM") || strings.Contains(text, "ACL failure") || strings.Contains(text, "The user executing the script")
}

// checkWait makes sure that the server has the commands for the configured durability.
func (s *Store) checkWait(ctx context.Context, node goredis.UniversalClient) error {
	if !s.opts.AOF && s.opts.Replicas == 0 {
		return nil
	}
	command := []any{"WAIT", 0, 1}
	if s.opts.AOF {
		command = []any{"WAITAOF", 0, 0, 1}
	}
	err := node.Do(ctx, command...).Err()
	if err != nil && s.opts.AOF && strings.Contains(err.Error(), "unknown command") {
		return refusal{errors.New("imageapi.store.redis.aof is set, but the server has no WAITAOF: want Redis 7.2 or newer, or Valkey; or set appendfsync always there and aof: false here")}
	}
	return err
}
