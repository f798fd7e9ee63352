package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"

	"tallyman/config"
	"tallyman/imageapi/catalog"
	"tallyman/imageapi/records"
	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streams"
	"tallyman/imageapi/verification"
	"tallyman/registry/gc"
	"tallyman/signatures/policy"
	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/redis"
)

// openStore opens the store that the configuration names. onLoss is called when
// content of it is found missing.
func openStore(ctx context.Context, c *config.Config, dataDirectory string, onLoss func(string)) (storage.Backend, error) {
	if !c.UsesRedis() {
		return openEmbedded(c, dataDirectory)
	}
	backend, err := openRedis(ctx, c, onLoss)
	if err != nil {
		return nil, err
	}
	slog.Info("images are kept in redis", "addrs", c.Registry.Redis.Options.Addrs, "prefix", c.ImageAPI.Store.Redis.Prefix)
	if path := c.StorePath(dataDirectory); fileExists(path) {
		slog.Warn("there is an embedded store, too, which is not used; tallyman store migrate --from bolt --to redis moves its content", "path", path)
	}
	return backend, nil
}

// historyMetrics are the size of the store's history, which is read when it is asked for, and its bound.
func historyMetrics(backend storage.Backend, c *config.Store) []prometheus.Collector {
	if t, ok := backend.(temporaryStore); ok {
		backend = t.Backend
	}
	store, ok := backend.(interface {
		HistoryBytes(ctx context.Context) (int64, error)
	})
	if !ok {
		return nil
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "imageapi_store_history_limit_bytes", Help: "Bound of the history's size, imageapi.store.historybytes."},
			func() float64 { return float64(c.HistoryBytes) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "imageapi_store_history_bytes", Help: "Size of the history, on which watches and paged lists look back; not a number while the store is away."}, func() float64 {
			ctx, cancel := context.WithTimeout(storage.WithBackground(context.Background()), c.Redis.Timeout)
			defer cancel()
			size, err := store.HistoryBytes(ctx)
			if err != nil {
				return math.NaN()
			}
			return float64(size)
		}),
	}
}

// locker is a store whose locks are one for all processes on it.
type locker interface {
	LockAndRead(ctx context.Context, keys []string, names ...string) (l storage.Lock, read map[string]*storage.Entry, err error)
}

// lockOf returns the store's LockAndRead, nil if it is this process' own store.
func lockOf(backend storage.Backend) storage.LockFunc {
	if l := sharedBy[locker](backend); l != nil {
		return l.LockAndRead
	}
	return nil
}

// sharedBy returns a store as T, by which its processes know of each other; nil if it is this
// process' own.
func sharedBy[T any](backend storage.Backend) T {
	shared, _ := backend.(T)
	return shared
}

// aloneIn reports whether no older version uses the store, which then has the newest format.
func aloneIn(backend storage.Backend) func() bool {
	s, ok := backend.(*redis.Store)
	if !ok {
		return nil // it is this process' own
	}
	return s.Newest
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// openEmbedded opens the embedded store. The registry's inmemory storage gets
// one that is gone with the process too.
func openEmbedded(c *config.Config, dataDirectory string) (storage.Backend, error) {
	path := c.StorePath(dataDirectory)
	temporary := ""
	if c.Registry.Storage.Type() == "inmemory" && c.ImageAPI.Store.Path == "" {
		var err error
		if temporary, err = os.MkdirTemp("", "tallyman-"); err != nil {
			return nil, err
		}
		path = temporary + "/tallyman.db"
	}
	backend, err := openBolt(c, path)
	if err != nil {
		return nil, err
	}
	slog.Info("images are kept in the embedded store", "path", path)
	if temporary != "" {
		return temporaryStore{backend, temporary}, nil
	}
	return backend, nil
}

// historyBounds returns the configured bounds. Settings under their former names win.
func historyBounds(c *config.Store) storage.HistoryBounds {
	return storage.HistoryBounds{
		MaxBytes: c.HistoryBytes, MinAge: c.HistoryMinAge,
		MaxEntries: cmp.Or(c.LogEntries, c.HistoryEntries), MaxAge: cmp.Or(c.LogAge, c.HistoryAge),
	}
}

func openBolt(c *config.Config, path string) (*bolt.Store, error) {
	backend, err := bolt.Open(bolt.Options{Path: path, History: historyBounds(&c.ImageAPI.Store)})
	if errors.Is(err, bolt.ErrLocked) {
		return nil, fmt.Errorf("%w: stop it first, or give this one another imageapi.store.path", err)
	}
	return backend, err
}

// temporaryStore removes its directory when it is closed.
type temporaryStore struct {
	storage.Backend
	directory string
}

// Close implements storage.Backend.
func (s temporaryStore) Close() error {
	return errors.Join(s.Backend.Close(), os.RemoveAll(s.directory))
}

func openRedis(ctx context.Context, c *config.Config, onLoss func(string)) (*redis.Store, error) {
	client, err := redisClient(&c.Registry.Redis)
	if err != nil {
		return nil, err
	}
	o := c.ImageAPI.Store
	return redis.Open(ctx, redis.Options{
		Client:            client,
		Prefix:            o.Redis.Prefix,
		History:           historyBounds(&o),
		CacheBytes:        o.Redis.CacheBytes,
		Replicas:          o.Redis.Replicas,
		AOF:               o.Redis.AOF,
		DurabilityTimeout: o.Redis.DurabilityTimeout,
		Timeout:           o.Redis.Timeout,
		OnLoss:            onLoss,
	})
}

// redisClient turns distribution's redis section into the client's options, as
// distribution does for its own cache (registry/handlers/app.go, configureRedis).
func redisClient(c *configuration.Redis) (goredis.UniversalOptions, error) {
	o := c.Options
	client := goredis.UniversalOptions{
		Addrs:            o.Addrs,
		ClientName:       o.ClientName,
		DB:               o.DB,
		Protocol:         o.Protocol,
		Username:         o.Username,
		Password:         o.Password,
		SentinelUsername: o.SentinelUsername,
		SentinelPassword: o.SentinelPassword,
		MaxRetries:       o.MaxRetries,
		MinRetryBackoff:  o.MinRetryBackoff,
		MaxRetryBackoff:  o.MaxRetryBackoff,
		DialTimeout:      o.DialTimeout,
		ReadTimeout:      o.ReadTimeout,
		WriteTimeout:     o.WriteTimeout,
		PoolFIFO:         o.PoolFIFO,
		PoolSize:         o.PoolSize,
		PoolTimeout:      o.PoolTimeout,
		MinIdleConns:     o.MinIdleConns,
		MaxIdleConns:     o.MaxIdleConns,
		MaxActiveConns:   o.MaxActiveConns,
		ConnMaxIdleTime:  o.ConnMaxIdleTime,
		ConnMaxLifetime:  o.ConnMaxLifetime,
		MaxRedirects:     o.MaxRedirects,
		MasterName:       o.MasterName,
		DisableIdentity:  o.DisableIdentity,
		IdentitySuffix:   o.IdentitySuffix,
		UnstableResp3:    o.UnstableResp3,
	}
	if c.TLS.Certificate == "" && len(c.TLS.RootCAs) == 0 {
		return client, nil
	}
	client.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLS.Certificate != "" {
		certificate, err := tls.LoadX509KeyPair(c.TLS.Certificate, c.TLS.Key)
		if err != nil {
			return client, fmt.Errorf("redis.tls: %w", err)
		}
		client.TLSConfig.Certificates = []tls.Certificate{certificate}
	}
	if len(c.TLS.RootCAs) > 0 {
		client.TLSConfig.RootCAs = x509.NewCertPool()
	}
	for i, path := range c.TLS.RootCAs {
		pem, err := os.ReadFile(path)
		if err != nil {
			return client, fmt.Errorf("redis.tls.rootcas[%d]: %w", i, err)
		}
		if !client.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return client, fmt.Errorf("redis.tls.rootcas[%d]: %s holds no certificate: want PEM", i, path)
		}
	}
	return client, nil
}

// drainJournal handles the journal entries that garbage-collect left, unless a server has the
// embedded store open.
func drainJournal(ctx context.Context, c *config.Config, dataDirectory string) (left int, err error) {
	backend, err := openStore(ctx, c, dataDirectory, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	signing, policies, err := signatureOptions(c)
	if err != nil {
		return 0, err
	}
	api, err := openImages(c, backend, policies, signing)
	if err != nil {
		return 0, err
	}
	defer api.close()
	return gc.Drain(ctx, c.Registry, trackerOptions(c, api))
}

// images are the resources on a store.
type images struct {
	backend   storage.Backend
	images    *rest.Images
	referrers *referrers.Store
	catalog   *catalog.Catalog
	verifier  *verification.Verifier
	signing   catalog.SignatureOptions
}

// close ends what reads the store. It comes before the backend's Close.
func (i *images) close() {
	i.images.Close()
}

func openImages(c *config.Config, backend storage.Backend, policies *policy.Verifier, signing catalog.SignatureOptions) (*images, error) {
	verifier := verification.New(verification.Options{
		Backend: backend, Policies: policies, Leases: sharedBy[verification.Leases](backend),
		Limit: c.ImageAPI.Signatures.VerifyLimit, PerMinute: c.ImageAPI.Signatures.VerifyPerMinute,
	})
	resource, err := rest.NewImages(backend, verifier)
	if err != nil {
		return nil, err
	}
	names, err := streams.New(c.ImageAPI.Streams.Namespace)
	if err != nil {
		resource.Close()
		return nil, fmt.Errorf("imageapi.streams: %w", err) // validated before
	}
	kept := records.New(records.Options{Backend: backend, Names: names, Depth: c.ImageAPI.Streams.History, Tombstone: c.ImageAPI.Streams.DeletedTags})
	referring := referrers.NewStore(backend)
	return &images{backend: backend, images: resource, referrers: referring, verifier: verifier, signing: signing, catalog: catalog.New(catalog.Options{
		Backend: backend, Images: resource, Referrers: referring, Records: kept, InlineLimit: inlineLimit(c), Signatures: signing,
	})}, nil
}
