package redis

import (
	"context"

	goredis "github.com/redis/go-redis/v9"
)

// AddHook adds a hook to the client, for tests that count.
func (s *Store) AddHook(h goredis.Hook) { s.client.AddHook(h) }

// OlderProcess is olderProcess.
func (s *Store) OlderProcess(ctx context.Context) (string, error) { return s.olderProcess(ctx) }

// AddOwnHook adds a hook to the connections of the monitor.
func (s *Store) AddOwnHook(h goredis.Hook) { s.own.AddHook(h) }
