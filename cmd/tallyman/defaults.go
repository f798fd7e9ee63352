package main

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"github.com/distribution/distribution/v3"
	rediscache "github.com/distribution/distribution/v3/registry/storage/cache/redis"
	"github.com/opencontainers/go-digest"
	goredis "github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"tallyman/config"
	"tallyman/registry"
	"tallyman/registry/resync"
	"tallyman/registry/tracker"
)

// defaultDataDirectory is where a program keeps a user's data (XDG Base
// Directory Specification); "" if there is no home.
func defaultDataDirectory() string {
	if dir := os.Getenv("TALLYMAN_DATADIR"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "tallyman")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "share", "tallyman")
}

// addDataDirectoryFlag lets a command be told another data directory.
func addDataDirectoryFlag(cmd *cobra.Command, directory *string) {
	cmd.Flags().StringVar(directory, "data-dir", defaultDataDirectory(), "where data goes that the configuration gives no place")
}

// defaultConfiguration is the configuration of `tallyman serve` without one: a registry for
// this machine only, with all data in one directory.
func defaultConfiguration(dataDirectory string) ([]byte, error) {
	dir, err := filepath.Abs(dataDirectory)
	if err != nil {
		return nil, err
	}
	type m = map[string]any
	return yaml.Marshal(m{
		"version": 0.1,
		"storage": m{
			"filesystem": m{"rootdirectory": filepath.Join(dir, "registry")},
			"delete":     m{"enabled": true},
		},
		"http": m{"addr": "127.0.0.1:5000", "secret": rand.Text()},
		"health": m{
			"storagedriver": m{"enabled": true, "interval": "10s", "threshold": 3},
		},
		"imageapi": m{
			"store": m{"path": filepath.Join(dir, "images.db")},
			// Nothing has been signed elsewhere for a registry that begins here.
			"signatures": m{"advertise": true},
			"auth":       m{"kubeconfigfile": filepath.Join(dir, "kubeconfig")},
		},
	})
}

// externalAddress is the host:port at which clients reach this process.
func externalAddress(c *config.Config) string {
	if u, err := url.Parse(c.Registry.HTTP.Host); err == nil && u.Host != "" {
		if u.Port() != "" {
			return u.Host
		}
		if u.Scheme == "https" {
			return net.JoinHostPort(u.Host, "443")
		}
		return net.JoinHostPort(u.Host, "80")
	}
	return listenAddress(c)
}

// listenAddress is the host:port at which this host reaches the process.
func listenAddress(c *config.Config) string {
	host, port, err := net.SplitHostPort(c.Registry.HTTP.Addr)
	if err != nil {
		return "localhost:5000"
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// registryHost is the host in pull references, "" for the one that the pushing
// client used.
func registryHost(c *config.Config) string {
	if c.ImageAPI.RegistryHost != "" {
		return c.ImageAPI.RegistryHost
	}
	if u, err := url.Parse(c.Registry.HTTP.Host); err == nil {
		return u.Host
	}
	return ""
}

// trackerOptions are the options of the Tracker of a registry.
func trackerOptions(c *config.Config, api *images) tracker.Options {
	return tracker.Options{
		Catalog:         api.catalog,
		Referrers:       api.referrers,
		OnStoreFailure:  tracker.FailurePolicy(c.ImageAPI.OnStoreFailure),
		Host:            registryHost(c),
		DefaultHost:     externalAddress(c),
		RefuseAmbiguous: c.ImageAPI.AmbiguousManifests == "refuse",
		Version:         version,
		PullThrough:     c.Registry.Proxy.RemoteURL != "",
		Lock:            lockOf(api.backend),
		Alone:           aloneIn(api.backend),
		Leases:          sharedBy[tracker.Leases](api.backend),
		SignatureLimits: api.signing.Limits,
	}
}

// resyncOptions are the options of the Resyncer of a registry, whose Tracker is missing.
func resyncOptions(c *config.Config, api *images) resync.Options {
	o := &c.ImageAPI.Resync
	return resync.Options{
		Leases: sharedBy[resync.Leases](api.backend),
		Period: o.Period, Grace: o.Grace, Removals: o.Removals, CallsPerSecond: o.CallsPerSecond,
	}
}

// forgetBlob deletes a blob from distribution's cache in Redis; nil if there is none.
func forgetBlob(c *config.Config) (func(context.Context, digest.Digest) error, error) {
	if registry.BlobCache(c.Registry) != "redis" {
		return nil, nil
	}
	options, err := redisClient(&c.Registry.Redis)
	if err != nil {
		return nil, err
	}
	blobs := rediscache.NewRedisBlobDescriptorCacheProvider(goredis.NewUniversalClient(&options))
	return func(ctx context.Context, d digest.Digest) error {
		err := blobs.Clear(ctx, d)
		if errors.Is(err, distribution.ErrBlobUnknown) {
			return nil
		}
		return err
	}, nil
}
