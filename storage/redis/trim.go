package redis

import (
	"context"
	"strings"

	goredis "github.com/redis/go-redis/v9"
)

// compactBatch is how many entries Compact drops at a time, but for the rest of a
// commit.
const compactBatch = 100

// appendTrims appends the keys and arguments that make a script drop entries.
func (s *Store) appendTrims(keys []string, args []any, entries []logEntry) ([]string, []any) {
	for i := range entries {
		e := &entries[i]
		args = append(args, digits(e.revision), digits(e.commit))
		switch {
		case e.format1:
			keys, args = append(keys, s.versionKey(e.previous)), append(args, "")
		case e.previous == 0:
			keys, args = append(keys, s.historyKey(e.key)), append(args, "-")
		default:
			keys, args = append(keys, s.historyKey(e.key)), append(args, strings.TrimSuffix(digits(e.previous)+","+e.moved, ","))
		}
	}
	return keys, args
}

func (s *Store) takeExpired() []logEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	expired := s.expired
	s.expired = nil
	return expired
}

func (s *Store) setExpired(list reply) error {
	entries := make([]logEntry, len(list))
	for i := range list {
		var err error
		if entries[i], err = parseEntry(list[i]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expired = entries
	return nil
}

// Compact implements storage.Backend.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	for {
		var first []goredis.XMessage
		err := s.do(ctx, func(ctx context.Context) (err error) {
			first, err = s.client.XRangeN(ctx, s.log, "-", digits(revision)+"-0", compactBatch+maxCommit).Result()
			return err
		})
		if err != nil {
			return err
		}
		entries := make([]logEntry, len(first))
		for i := range first {
			if entries[i], err = messageEntry(first[i]); err != nil {
				return err
			}
		}
		keys, args := s.appendTrims([]string{s.meta, s.log}, []any{formatAny, digits(revision)}, wholeCommits(entries, compactBatch))
		r, err := s.run(ctx, compactScript, keys, args...)
		if err != nil || r.integer(0) == 1 {
			return err
		}
	}
}
