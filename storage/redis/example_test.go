package redis_test

import (
	"context"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis"
)

// Every commit waits for one replica and its append-only file. The history holds at least
// the changes of an hour.
func ExampleOpen() {
	ctx := context.Background()
	store, err := redis.Open(ctx, redis.Options{
		Client:   goredis.UniversalOptions{Addrs: []string{"sentinel-0:26379", "sentinel-1:26379", "sentinel-2:26379"}, MasterName: "images"},
		Replicas: 1,
		AOF:      true,
		History:  storage.HistoryBounds{MinAge: time.Hour},
		OnLoss:   func(reason string) { fmt.Println("start a backfill:", reason) },
	})
	if err != nil {
		panic(err)
	}
	defer func() { _ = store.Close() }()
}
