package redis

import goredis "github.com/redis/go-redis/v9"

// AddHook adds a hook to the client, for tests that count.
func (s *Store) AddHook(h goredis.Hook) { s.client.AddHook(h) }
