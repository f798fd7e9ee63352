package redis

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
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

const (
	// trimInterval is the interval of trimming in the background.
	trimInterval = time.Second
	// trimBatch is the number of entries that one script drops. It finishes a commit.
	trimBatch = 128
	// holdTime is the lifetime of a published hold that is not renewed.
	holdTime = 5 * time.Second
)

// bounds encodes History for scripts.
func (s *Store) bounds() string { return boundsOf(&s.opts.History) }

func boundsOf(b *storage.HistoryBounds) string {
	return fmt.Sprintf("%d %d %d %d", b.MaxBytes, b.MinAge.Microseconds(), b.MaxEntries, b.MaxAge.Microseconds())
}

// keepTrimming trims the history in small steps. Commits trim too, but with many processes
// most of the entries that a commit offers are gone already.
func (s *Store) keepTrimming(ctx context.Context) {
	published := false
	for ctx.Err() == nil {
		pause(ctx, trimInterval)
		held := s.Oldest()
		err := s.publishHold(ctx, held, published)
		if err == nil {
			published = held != 0
			err = s.trimExcess(ctx)
		}
		if err != nil && s.outage.Load() == nil && !s.isClosed() {
			slog.Warn("redis: history not trimmed", "err", err)
		}
	}
}

// publishHold publishes the oldest revision that this process holds.
func (s *Store) publishHold(ctx context.Context, held int64, published bool) error {
	if held == 0 && !published {
		return nil
	}
	revision := ""
	if held != 0 {
		revision = digits(held)
	}
	_, err := s.run(ctx, holdScript, []string{s.meta, s.holds}, formatAny, s.process, revision, holdTime.Milliseconds())
	return err
}

func (s *Store) trimExcess(ctx context.Context) error {
	var next []logEntry
	for more := true; more; {
		var err error
		if next, err = s.trimSome(ctx, s.bounds(), next); err != nil {
			return err
		}
		more = len(next) > 0
	}
	return nil
}

// trimSome drops those of entries that exceed bounds, and returns the next ones.
func (s *Store) trimSome(ctx context.Context, bounds string, entries []logEntry) (next []logEntry, err error) {
	keys, args := s.appendTrims([]string{s.meta, s.log, s.holds}, []any{formatAny, s.clock(), bounds, trimBatch}, entries)
	r, err := s.run(ctx, excessScript, keys, args...)
	if err != nil {
		return nil, err
	}
	return parseEntries(r)
}

// makeRoom trims the history of a full server: commits of any age for a removal, otherwise
// those older than MinAge.
func (s *Store) makeRoom(ctx context.Context, removes bool) error {
	b := storage.HistoryBounds{MaxBytes: s.opts.History.MaxBytes, MinAge: s.opts.History.MinAge}
	if removes {
		b = storage.HistoryBounds{}
	}
	next, err := s.trimSome(ctx, boundsOf(&b), nil)
	if err == nil && len(next) > 0 {
		_, err = s.trimSome(ctx, boundsOf(&b), next)
	}
	return err
}

func parseEntries(list reply) ([]logEntry, error) {
	entries := make([]logEntry, len(list))
	for i := range list {
		var err error
		if entries[i], err = parseEntry(list[i]); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

func (s *Store) takeExpired() []logEntry {
	s.mu.Lock()
	defer s.mu.Unlock()
	expired := s.expired
	s.expired = nil
	return expired
}

func (s *Store) setExpired(list reply) error {
	entries, err := parseEntries(list)
	if err != nil {
		return err
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
