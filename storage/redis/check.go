package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

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
