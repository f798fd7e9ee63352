package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/section"
)

const (
	// clientName starts the names of connections of this version and newer ones.
	// Connections of older versions have none.
	clientName = "tallyman-"
	// quietTime is how long no older process must have been seen before the store is
	// upgraded.
	quietTime = 30 * time.Second
	// leaseInterval is how often a process says that it is there, and leaseTime how long
	// it counts as there after that.
	leaseInterval = 5 * time.Second
	leaseTime     = 30 * time.Second
)

// Format returns the format of the store.
func (s *Store) Format() int { return int(s.format.Load()) }

// Newest reports whether the store has the newest format, so that no older version uses it.
func (s *Store) Newest() bool { return s.Format() == knownFormat }

// Upgrade gives the store the newest format, which older versions of tallyman refuse. It
// is called by itself when no older process was connected for 30 seconds. It returns the
// format before and after.
func (s *Store) Upgrade(ctx context.Context) (from, to int, err error) {
	r, err := s.run(ctx, upgradeScript, []string{s.meta}, knownFormat)
	if err != nil {
		return 0, 0, err
	}
	s.format.Store(knownFormat)
	return int(r.integer(0)), knownFormat, nil
}

// setFormat notes the format of the store.
func (s *Store) setFormat(format string) error {
	known := parseDigits(format)
	if known < format1 || known > knownFormat {
		return formatError(format)
	}
	s.format.Store(int32(known))
	return nil
}

// learnFormat reads the format of the store.
func (s *Store) learnFormat(ctx context.Context) error {
	return s.do(ctx, func(ctx context.Context) error {
		format, err := s.client.HGet(ctx, s.meta, "format").Result()
		if err != nil {
			return err
		}
		return s.setFormat(format)
	})
}

// attend renews the lease of this process and, while the store has an older format, looks
// whether it can be upgraded.
func (s *Store) attend(ctx context.Context) {
	if time.Since(s.lastLeased) < leaseInterval {
		return
	}
	s.lastLeased = time.Now()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	if err := s.renewLease(ctx); err != nil {
		if !s.isClosed() {
			slog.Warn("redis: lease not renewed", "err", err)
		}
		return
	}
	if s.Format() == knownFormat {
		return
	}
	if err := s.learnFormat(ctx); err != nil || s.Format() == knownFormat { // another process was faster
		return
	}
	older, err := s.olderProcess(ctx)
	switch {
	case err != nil:
		slog.Warn("redis: store not upgraded: older processes cannot be looked for; run `tallyman store upgrade` when there are none", "err", err)
		return
	case older != "":
		if s.olderSeen.IsZero() {
			slog.Info("redis: working in an older format while an older version of tallyman is connected", "format", s.Format(), "client", older)
		}
		s.olderSeen = time.Now()
		return
	case s.olderSeen.IsZero():
		s.olderSeen = time.Now() // none so far: the time begins
		return
	case time.Since(s.olderSeen) < quietTime:
		return
	}
	from, to, err := s.Upgrade(ctx)
	if err != nil {
		slog.Warn("redis: store not upgraded", "err", err)
	} else if from != to {
		slog.Info("redis: store upgraded", "from", from, "to", to)
	}
}

// renewLease says that this process is there and which formats it knows.
func (s *Store) renewLease(ctx context.Context) error {
	now := time.Now()
	pipe := s.own.Pipeline()
	pipe.ZAdd(ctx, s.processes, goredis.Z{Score: float64(now.UnixMilli()), Member: fmt.Sprintf("%s:%d", s.process, knownFormat)})
	pipe.ZRemRangeByScore(ctx, s.processes, "-inf", digits(now.Add(-leaseTime).UnixMilli()))
	_, err := pipe.Exec(ctx)
	return err
}

// storeCommands are commands that a connection of tallyman has run last, but one of
// another user of the same Redis hardly.
var storeCommands = map[string]bool{"xread": true, "evalsha": true, "evalsha_ro": true, "eval": true, "eval_ro": true}

// olderProcess returns a process that does not know the newest format, "" if there is
// none: one whose lease says so, or a connection of a version that has no leases. The
// connection may be of a process with another prefix, as connections do not tell.
func (s *Store) olderProcess(ctx context.Context) (string, error) {
	leases, err := s.own.ZRange(ctx, s.processes, 0, -1).Result()
	if err != nil {
		return "", err
	}
	for _, lease := range leases {
		if process, format, _ := strings.Cut(lease, ":"); parseDigits(format) < knownFormat {
			return process, nil
		}
	}
	node, err := s.node(ctx)
	if err != nil {
		return "", err
	}
	list, err := node.ClientList(ctx).Result()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(list) {
		client := map[string]string{}
		for _, pair := range strings.Fields(line) {
			name, value, _ := strings.Cut(pair, "=")
			client[name] = value
		}
		library, command := client["lib-name"], strings.ReplaceAll(client["cmd"], "|", "-")
		if !strings.HasPrefix(client["name"], clientName) && storeCommands[command] && (library == "" || strings.HasPrefix(library, "go-redis")) {
			return client["addr"], nil
		}
	}
	return "", nil
}

// errRetry is returned by a commit in format 1 that was overtaken.
var errRetry = errors.New("the store changed faster than it could be written")

// commitFormat1 makes a commit that processes of the version before can read: bodies
// only, no terms. Where a replaced value goes is named by its revision, so that a
// mutation of any revision is made one of the revision that is there, again until that
// has not changed meanwhile.
func (s *Store) commitFormat1(ctx context.Context, mutations []storage.Mutation) (*storage.CommitResult, error) {
	expect := make([]int64, len(mutations))
	absent := make([]bool, len(mutations)) // unconditional deletions of absent keys
	for i := range mutations {
		if expect[i] = mutations[i].Expect; expect[i] == storage.AnyRevision {
			current, _, err := storage.GetEntry(ctx, s, mutations[i].Key, storage.Read{Sections: []string{}})
			if err != nil {
				return nil, err
			}
			expect[i], absent[i] = revisionOf(current), current == nil && mutations[i].Operation == storage.Delete
		}
	}
	const tries = 100
	for range tries {
		result, err := s.commitAt(ctx, mutations, expect, absent)
		if err != nil || result.Succeeded || mutations[result.Conflict].Expect != storage.AnyRevision {
			return result, err
		}
		i := result.Conflict
		expect[i] = revisionOf(result.Current)
		absent[i] = result.Current == nil && mutations[i].Operation == storage.Delete
	}
	return nil, fmt.Errorf("redis: %w", errRetry)
}

func revisionOf(e *storage.Entry) int64 {
	if e == nil {
		return 0
	}
	return e.Revision
}

func (s *Store) commitAt(ctx context.Context, mutations []storage.Mutation, expect []int64, absent []bool) (*storage.CommitResult, error) {
	keys, args := []string{s.meta, s.index, s.log, s.terms, s.outcomeKey(rand.Text()), s.holds}, []any{}
	for i := range mutations {
		m := mutations[i]
		if absent[i] {
			m = storage.Mutation{Operation: storage.Check, Key: m.Key}
		}
		if m.Operation != storage.CheckEmpty {
			keys = append(keys, s.valueKey(m.Key), s.versionKey(expect[i]), s.objectKey(m.Key))
		}
		args = appendMutation(args, &m, expect[i], nil, section.AppendFormat1)
	}
	return s.runCommit(ctx, commit1Script, format1, keys, args, mutations)
}
