package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func (r *Redis) validate(fault func(key string, value any, want string)) {
	if r.Prefix == "" || strings.ContainsAny(r.Prefix, "{}") {
		fault("store.redis.prefix", fmt.Sprintf("%q", r.Prefix), "a text without braces")
	}
	if r.CacheBytes < 0 {
		fault("store.redis.cachebytes", r.CacheBytes, "0 or more bytes")
	}
	if r.Replicas < 0 {
		fault("store.redis.replicas", r.Replicas, "0 or more replicas")
	}
	if r.DurabilityTimeout < time.Millisecond {
		fault("store.redis.durabilitytimeout", r.DurabilityTimeout, "a time such as 1s")
	}
	if r.Timeout < 10*time.Millisecond || r.Timeout > time.Minute {
		fault("store.redis.timeout", r.Timeout, "between 10ms and 1m")
	}
}

// UsesRedis reports whether Images are kept in Redis.
func (c *Config) UsesRedis() bool {
	return c.ImageAPI.Store.Type == "redis" || (c.ImageAPI.Store.Type == "auto" && len(c.Registry.Redis.Options.Addrs) > 0)
}

// resolveRedis checks distribution's redis section, which is where Images are
// kept too, and reads the passwords that are in files.
func (c *Config) resolveRedis() error {
	o, tls := &c.Registry.Redis.Options, &c.Registry.Redis.TLS
	if c.ImageAPI.Store.Type == "redis" && len(o.Addrs) == 0 {
		return errors.New("imageapi.store.type: redis needs redis.addrs, such as [127.0.0.1:6379]")
	}
	var errs []error
	for i, addr := range o.Addrs {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
			errs = append(errs, fmt.Errorf("redis.addrs[%d]: %q is not valid: want host:port", i, addr))
		}
	}
	if o.MasterName == "" && len(o.Addrs) > 1 && o.DB != 0 {
		errs = append(errs, fmt.Errorf("redis.db: %d is not valid with several redis.addrs, which are a Cluster's: want 0, or redis.mastername if they are Sentinels", o.DB))
	}
	if (tls.Certificate == "") != (tls.Key == "") {
		errs = append(errs, errors.New("redis.tls: certificate and key go together: want both or neither"))
	}
	for _, secret := range []struct {
		key, file string
		value     *string
	}{
		{"password", c.ImageAPI.Store.Redis.PasswordFile, &o.Password},
		{"sentinelpassword", c.ImageAPI.Store.Redis.SentinelPasswordFile, &o.SentinelPassword},
	} {
		if secret.file == "" {
			continue
		}
		key := section + ".store.redis." + secret.key + "file"
		content, err := os.ReadFile(secret.file)
		switch {
		case *secret.value != "":
			errs = append(errs, fmt.Errorf("%s: redis.%s is set too: want one of the two", key, secret.key))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		default:
			*secret.value = strings.TrimSpace(string(content))
		}
	}
	return errors.Join(errs...)
}
