package redis

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
)

// The scripts are atomic steps of the server. Every key that one touches is
// declared to it, and its work is bounded by the page it is asked for.
//
//go:embed scripts/*.lua
var sources embed.FS

// script joins parts of scripts, the first of which most begin with.
func script(parts ...string) *goredis.Script {
	var b strings.Builder
	for _, part := range parts {
		source, err := sources.ReadFile("scripts/" + part + ".lua")
		if err != nil {
			panic(err) // it is compiled in
		}
		b.Write(source)
	}
	return goredis.NewScript(b.String())
}

var (
	openScript        = script("open")
	permissionsScript = script("permissions")
	getScript         = script("meta", "value", "get")
	valuesScript      = script("meta", "value", "values")
	pageScript        = script("meta", "page")
	countScript       = script("meta", "count")
	logScript         = script("meta", "log")
	windowScript      = script("meta", "window")
	commitScript      = script("meta", "value", "trim", "commitbegin", "commit", "commitend")
	commit1Script     = script("meta", "value", "trim", "commitbegin", "commit1", "commitend")
	compactScript     = script("meta", "trim", "compact")
	forgetScript      = script("meta", "forget")
	advanceScript     = script("meta", "advance")
	fillScript        = script("meta", "value", "fill")
	upgradeScript     = script("meta", "upgrade")
)

// errEmpty is what a script answers where there is no store.
var errEmpty = errors.New("the store in Redis is empty")

// errOtherFormat is the answer of a script after another process has upgraded the store.
var errOtherFormat = errors.New("the store in Redis has another format by now")

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
	case strings.Contains(text, "TALLYNOINDEX"):
		return storage.ErrNoIndex
	case strings.Contains(text, "TALLYOTHERFORMAT"):
		return errOtherFormat
	case strings.Contains(text, "TALLYFORMAT"):
		_, format, _ := strings.Cut(text, "TALLYFORMAT ")
		return formatError(format)
	}
	return err
}

func formatError(found string) error {
	return fmt.Errorf("%w: it has format %s, this version reads and writes formats %s and %s: run the version of tallyman that made it, or a newer one", ErrFormat, found, oldFormat, newFormat)
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
