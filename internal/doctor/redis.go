package doctor

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// leastRedis is the oldest version of Redis that the store works with.
const leastRedis = 7

// mostLatency is the time of one round trip from which on it is worth a warning: a push waits for four.
const mostLatency = 5 * time.Millisecond

func checkRedis(ctx context.Context, r *report, o *Options) {
	options, err := o.Redis()
	if err != nil {
		r.fail("redis.tls", "%v", err)
		return
	}
	options.MaxRetries, options.DialTimeout, options.ReadTimeout = -1, o.Timeout, o.Timeout
	client := goredis.NewUniversalClient(&options)
	defer func() { _ = client.Close() }()
	if err := client.Ping(ctx).Err(); err != nil {
		fix := "redis.addrs"
		if text := err.Error(); strings.Contains(text, "NOAUTH") || strings.Contains(text, "WRONGPASS") || strings.Contains(text, "AUTH") {
			fix = "redis.password, or imageapi.store.redis.passwordfile"
		}
		r.fail(fix, "redis at %s: %v", strings.Join(options.Addrs, ", "), err)
		return
	}
	info := serverInfo(ctx, client)
	if len(info) == 0 {
		r.warn("let the user run INFO", "redis at %s answers, but not to INFO: nothing more is known of it", strings.Join(options.Addrs, ", "))
		return
	}
	checkVersion(r, info)
	checkMemory(r, o, info)
	checkDurability(ctx, r, o, client, info)
	checkLatency(ctx, r, client)
}

// serverInfo reads INFO of one server, the keys of all its sections.
func serverInfo(ctx context.Context, client goredis.UniversalClient) map[string]string {
	text, err := client.Info(ctx).Result()
	if err != nil {
		return nil
	}
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[key] = value
		}
	}
	return info
}

func number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0 // a server that does not tell it
	}
	return n
}

func checkVersion(r *report, info map[string]string) {
	name, version := "redis", info["redis_version"]
	if v, ok := info["valkey_version"]; ok {
		name, version = "valkey", v
	}
	major, _, _ := strings.Cut(version, ".")
	if number(major) < leastRedis {
		r.fail("upgrade it", "%s %s is too old: want %d.0 or newer", name, version, leastRedis)
		return
	}
	r.ok("%s %s answers", name, version)
}

func checkMemory(r *report, o *Options, info map[string]string) {
	limit, used, history := number(info["maxmemory"]), number(info["used_memory"]), o.Config.ImageAPI.Store.HistoryBytes
	policy := info["maxmemory_policy"]
	if policy != "noeviction" {
		r.fail("maxmemory-policy noeviction, in redis.conf", "the eviction policy is %s: Redis throws Images away when its memory is full", policy)
	}
	switch {
	case limit == 0:
		r.warn("maxmemory, in redis.conf", "there is no memory limit: the kernel ends Redis when the host has no more")
	case limit < used+history:
		r.warn("maxmemory, in redis.conf, or imageapi.store.historybytes", "memory ends at %d bytes, and %d are used: the history alone may take %d", limit, used, history)
	default:
		r.ok("%d of %d bytes of memory are used", used, limit)
	}
}

func checkDurability(ctx context.Context, r *report, o *Options, client goredis.UniversalClient, info map[string]string) {
	store := &o.Config.ImageAPI.Store.Redis
	appends := info["aof_enabled"] == "1"
	switch {
	case store.AOF && !appends:
		r.fail("appendonly yes, in redis.conf, or imageapi.store.redis.aof: false", "writes are to be in the append-only file, and there is none: every write fails")
	case appends:
		r.ok("there is an append-only file")
	case savesSnapshots(ctx, client):
		r.warn("appendonly yes, in redis.conf", "there are snapshots only: a crash of Redis loses the changes since the last one")
	default:
		r.warn("appendonly yes, in redis.conf", "Redis keeps nothing on disk: after its restart all Images are derived again, and the additions of users are lost")
	}
	replicas := number(info["connected_slaves"])
	if wanted := int64(store.Replicas); replicas < wanted {
		r.fail("imageapi.store.redis.replicas", "each write waits for %d replicas, and %d are connected: every write fails", wanted, replicas)
	} else if wanted > 0 {
		r.ok("%d replicas are connected", replicas)
	}
}

func savesSnapshots(ctx context.Context, client goredis.UniversalClient) bool {
	settings, err := client.ConfigGet(ctx, "save").Result()
	return err != nil || settings["save"] != "" // managed services answer no CONFIG, and save by themselves
}

func checkLatency(ctx context.Context, r *report, client goredis.UniversalClient) {
	var times []time.Duration
	for range 9 {
		began := time.Now()
		if client.Ping(ctx).Err() != nil {
			return // it answered before: the next look tells
		}
		times = append(times, time.Since(began))
	}
	slices.Sort(times)
	median := times[len(times)/2]
	if median > mostLatency {
		r.warn("redis.addrs: a Redis near this host", "a round trip takes %s: a push waits for four", median.Round(100*time.Microsecond))
		return
	}
	r.ok("a round trip takes %s", median.Round(10*time.Microsecond))
}
