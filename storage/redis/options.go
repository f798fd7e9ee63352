package redis

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
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
