package redis_test

import (
	"crypto/rand"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
	"tallyman/storage/storagetest"
)

// TestContract runs the contract on Redis and Valkey, or on their double; TestCluster does on
// a Cluster.
func TestContract(t *testing.T) {
	flavors := redistest.Flavors
	if testing.Short() {
		flavors = flavors[:1]
	}
	for _, flavor := range flavors {
		t.Run(flavor, func(t *testing.T) {
			client := goredis.UniversalOptions{Addrs: []string{redistest.Any(t, flavor).Addr}}
			storagetest.Run(t, func(t *testing.T, now func() time.Time) storage.Backend {
				// Each test has a store of its own in the same server.
				s, err := redis.Open(t.Context(), redis.Options{Client: client, Prefix: rand.Text(), Now: now, CacheBytes: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				return s
			})
		})
	}
}

func TestHistory(t *testing.T) {
	client := goredis.UniversalOptions{Addrs: []string{redistest.Any(t, flavor).Addr}}
	open := func(t *testing.T, now func() time.Time, bounds storage.HistoryBounds) storage.Backend {
		s, err := redis.Open(t.Context(), redis.Options{Client: client, Prefix: rand.Text(), Now: now, History: bounds})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	storagetest.RunHistory(t, open)
	t.Run("Long", func(t *testing.T) { storagetest.RunLongHistory(t, open) })
}
