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

// join joins parts of scripts, the first of which most begin with.
func join(head string, parts ...string) *goredis.Script {
	var b strings.Builder
	b.WriteString(head)
	for _, part := range parts {
		source, err := sources.ReadFile("scripts/" + part + ".lua")
		if err != nil {
			panic(err) // it is compiled in
		}
		b.Write(source)
	}
	return goredis.NewScript(b.String())
}

// Heads of scripts. With one, a script is refused as a whole by a replica and, unless it
// says allow-oom, by a server whose memory is full.
// https://redis.io/docs/latest/develop/programmability/lua-api/#script_flags
const (
	adds       = "#!lua\n"
	addsAnyway = "#!lua flags=allow-oom\n"
)

// script joins parts of a script that a full server runs.
func script(parts ...string) *goredis.Script { return join(addsAnyway, parts...) }

// reader is a read-only script in two forms. onMaster is declared as a writing script, so
// that a replica refuses it. readOnly runs on a master that refuses writes for lack of disk
// space or replicas; it checks the role itself.
type reader struct{ onMaster, readOnly *goredis.Script }

func readScript(parts ...string) reader {
	return reader{script(parts...), join("", append([]string{"role"}, parts...)...)}
}

// run calls call with the form that the server runs.
func (r reader) run(call func(runner) (reply, error)) (reply, error) {
	answer, err := call(r.onMaster.Run)
	if refusesWrites(err) {
		return call(r.readOnly.RunRO)
	}
	return answer, err
}

// committer is a commit script in two forms: a full server refuses plain, and runs anyway.
type committer struct{ plain, anyway *goredis.Script }

func commitScript(parts ...string) committer {
	return committer{join(adds, parts...), join(addsAnyway, parts...)}
}

var (
	openScript        = readScript("open") // it writes only where there is no store
	permissionsScript = script("permissions")
	getScript         = readScript("meta", "value", "get")
	valuesScript      = readScript("meta", "value", "values")
	pageScript        = readScript("meta", "page")
	countScript       = readScript("meta", "count")
	logScript         = readScript("meta", "log")
	windowScript      = readScript("meta", "window")
	stateScript       = readScript("meta", "state")
	commit2Script     = commitScript("meta", "value", "trim", "bounds", "commitbegin", "commit", "commitend")
	commit1Script     = commitScript("meta", "value", "trim", "bounds", "commitbegin", "commit1", "commitend")
	confirmScript     = script("meta", "confirm")
	compactScript     = script("meta", "trim", "compact")
	excessScript      = script("meta", "trim", "bounds", "excess")
	holdScript        = script("meta", "hold")
	forgetScript      = script("meta", "forget")
	reindexScript     = script("meta", "reindex")
	reindexedScript   = script("meta", "reindexed")
	advanceScript     = script("meta", "advance")
	fillScript        = join(adds, "meta", "value", "fill")
	upgradeScript     = script("meta", "upgrade")
	lockScript        = script("lock")
	unlockScript      = script("unlock")
)

// errEmpty is the answer of a script where there is no store.
var errEmpty = errors.New("the store in Redis is empty")

// errOtherFormat is the answer of a script after another process has upgraded the store.
var errOtherFormat = errors.New("the store in Redis has another format by now")

// errStale is the answer of a script where the store is older than this process has seen it.
var errStale = errors.New("redis lacks acknowledged revisions: it is not the master, or has lost something")

// errEvicted is the answer of a script where an index of the store is gone.
var errEvicted = errors.New("redis evicted an index of the store, which is being repaired; set maxmemory-policy noeviction")

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
	case strings.Contains(text, "TALLYEVICTED"):
		return errEvicted
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
	return fmt.Errorf("%w: it has format %s, this version reads and writes formats %d to %d: run the version of tallyman that made it, or a newer one", ErrFormat, found, format1, knownFormat)
}

// counted counts the round trips of a client for requests.
type counted struct{}

func count(ctx context.Context) {
	if !storage.IsBackground(ctx) {
		roundTrips.Inc()
	}
}

// DialHook implements goredis.Hook.
func (counted) DialHook(next goredis.DialHook) goredis.DialHook { return next }

// ProcessHook implements goredis.Hook.
func (counted) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		count(ctx)
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook implements goredis.Hook.
func (counted) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		count(ctx)
		return next(ctx, cmds)
	}
}

// reply is the reply of a script: strings, integers, nils and lists of them.
type reply []any

// run runs a script that may write.
func (s *Store) run(ctx context.Context, script *goredis.Script, keys []string, args ...any) (reply, error) {
	return s.script(ctx, script.Run, keys, args...)
}

// read runs a script that only reads.
func (s *Store) read(ctx context.Context, script reader, keys []string, args ...any) (reply, error) {
	return script.run(func(run runner) (reply, error) { return s.script(ctx, run, keys, args...) })
}

// readBy is read on the given client, without the checks of do. The monitor uses it.
func (s *Store) readBy(ctx context.Context, client goredis.UniversalClient, script reader, keys []string, args ...any) (reply, error) {
	return script.run(func(run runner) (reply, error) {
		r, err := fromMaster(func() ([]any, error) { return run(ctx, client, keys, args...).Slice() })
		return r, scriptError(err)
	})
}

// maxReplies is the number of retries after READONLY. The client closes a connection on
// which a replica answered, so each retry uses another one.
const maxReplies = 100

// fromMaster repeats call until no replica answers it.
func fromMaster(call func() ([]any, error)) (r []any, err error) {
	for range maxReplies {
		if r, err = call(); !isReplica(err) {
			break
		}
	}
	return r, err
}

func isReplica(err error) bool { return goredis.HasErrorPrefix(err, "READONLY") }

// refusesWrites reports whether the server refuses writes for lack of disk space or replicas.
func refusesWrites(err error) bool {
	return goredis.HasErrorPrefix(err, "MISCONF") || goredis.HasErrorPrefix(err, "NOREPLICAS")
}

// isFull reports whether the server refuses writes for lack of memory.
func isFull(err error) bool { return goredis.HasErrorPrefix(err, "OOM") }

type runner func(ctx context.Context, c goredis.Scripter, keys []string, args ...any) *goredis.Cmd

// script runs a script, and refuses a server that is behind a seen revision, or has lost the
// store: the monitor decides about both.
func (s *Store) script(ctx context.Context, run runner, keys []string, args ...any) (reply, error) {
	var result []any
	args = append(args, digits(s.seen.Load()))
	err := s.do(ctx, func(ctx context.Context) error {
		var err error
		result, err = fromMaster(func() ([]any, error) { return run(ctx, s.client, keys, args...).Slice() })
		err = scriptError(err)
		switch {
		case errors.Is(err, errEmpty):
			return errStale
		case errors.Is(err, errEvicted):
			s.repair()
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
