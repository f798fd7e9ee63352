package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

// The scripts are atomic steps of the server. Every key that one touches is
// declared to it, and its work is bounded by the page it is asked for.
var (
	//go:embed scripts/meta.lua
	metaSource string
	//go:embed scripts/open.lua
	openSource string
	//go:embed scripts/get.lua
	getSource string
	//go:embed scripts/page.lua
	pageSource string
	//go:embed scripts/log.lua
	logSource string
	//go:embed scripts/window.lua
	windowSource string
	//go:embed scripts/commit.lua
	commitSource string
	//go:embed scripts/compact.lua
	compactSource string
	//go:embed scripts/forget.lua
	forgetSource string
	//go:embed scripts/advance.lua
	advanceSource string
	//go:embed scripts/permissions.lua
	permissionsSource string

	openScript        = goredis.NewScript(openSource)
	getScript         = goredis.NewScript(metaSource + getSource)
	pageScript        = goredis.NewScript(metaSource + pageSource)
	logScript         = goredis.NewScript(metaSource + logSource)
	windowScript      = goredis.NewScript(metaSource + windowSource)
	commitScript      = goredis.NewScript(metaSource + commitSource)
	compactScript     = goredis.NewScript(metaSource + compactSource)
	forgetScript      = goredis.NewScript(metaSource + forgetSource)
	advanceScript     = goredis.NewScript(metaSource + advanceSource)
	permissionsScript = goredis.NewScript(permissionsSource)
)

// errEmpty is what a script answers where there is no store.
var errEmpty = errors.New("the store in Redis is empty")

// errStale is what a script answers where the store is behind what was seen of it.
var errStale = errors.New("redis is behind what it has acknowledged: it is not the master, or has lost something")

// scriptError gives the errors that scripts reply with their meaning.
func scriptError(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "TALLYEMPTY"):
		return errEmpty
	case strings.Contains(text, "TALLYCOMPACTED"):
		return storage.ErrCompacted
	case strings.Contains(text, "TALLYFUTURE"):
		return storage.ErrFuture
	case strings.Contains(text, "TALLYSTALE"):
		return errStale
	case strings.Contains(text, "TALLYFORMAT"):
		_, format, _ := strings.Cut(text, "TALLYFORMAT ")
		return formatError(format)
	}
	return err
}

func formatError(found string) error {
	return fmt.Errorf("%w: it has format %s, this version reads and writes format %s: run the version of tallyman that made it, or a newer one", ErrFormat, found, formatVersion)
}

// reply is what a script returned: strings, integers, nils and lists of them.
type reply []any

// run runs a script that may write.
func (s *Store) run(ctx context.Context, script *goredis.Script, keys []string, args ...any) (reply, error) {
	return s.script(ctx, script.Run, keys, args...)
}

// read runs a script that only reads.
func (s *Store) read(ctx context.Context, script *goredis.Script, keys []string, args ...any) (reply, error) {
	return s.script(ctx, script.RunRO, keys, args...)
}

type runner func(ctx context.Context, c goredis.Scripter, keys []string, args ...any) *goredis.Cmd

// script runs a script, and refuses a server that is behind what was seen, or on
// which the store is gone: the monitor decides what becomes of it.
func (s *Store) script(ctx context.Context, run runner, keys []string, args ...any) (reply, error) {
	var result []any
	args = append(args, digits(s.seen.Load()))
	err := s.do(ctx, func(ctx context.Context) error {
		var err error
		result, err = run(ctx, s.client, keys, args...).Slice()
		if err = scriptError(err); errors.Is(err, errEmpty) {
			return errStale
		}
		return err
	})
	return result, err
}

// integer returns element i, which is a revision or a count.
func (r reply) integer(i int) int64 {
	switch v := r[i].(type) {
	case int64:
		return v
	case string:
		n, _ := strconv.ParseInt(v, 10, 64) // the scripts reply with digits
		return n
	}
	return 0
}

// text returns element i, "" if it is missing or nil.
func (r reply) text(i int) string {
	if i >= len(r) {
		return ""
	}
	v, _ := r[i].(string)
	return v
}

// list returns element i.
func (r reply) list(i int) reply {
	v, _ := r[i].([]any)
	return v
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }
