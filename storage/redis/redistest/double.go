package redistest

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts so
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
)

// info is the answer of the double to INFO: a durable master.
const info = "redis_version:7.4.0\r\nrole:master\r\naof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\ncluster_enabled:0\r\n"

// Any starts a server for a test that only sends commands. In a short run it is the Double.
func Any(t testing.TB, binary string) *Server {
	t.Helper()
	if testing.Short() {
		double := Double(t)
		return &Server{Addr: double.Addr(), double: double}
	}
	return Start(t, binary)
}

// Double starts a server in this process, miniredis, which ends with the test. It runs the
// scripts on maps: it has no memory bound, no persistence, no replicas and no permissions.
// Tests of those, and all tests once more, take a real server.
func Double(t testing.TB) *miniredis.Miniredis {
	t.Helper()
	m := miniredis.RunT(t)
	commands := m.Server() // it has none after its end, when a last command may be under way
	var sources sync.Map   // of scripts with flags, by the digest that a client knows
	commands.SetPreHook(func(c *server.Peer, command string, args ...string) bool {
		evaluate := func(source string) bool {
			_, source, _ = strings.Cut(source, "\n") // it does not know the line with the flags
			commands.Dispatch(c, append([]string{"EVAL", source}, args[1:]...))
			return true
		}
		switch {
		case command == "INFO":
			c.WriteBulk(info)
			return true
		case command == "EVAL" && strings.HasPrefix(args[0], "#!"):
			sources.Store(fmt.Sprintf("%x", sha1.Sum([]byte(args[0]))), args[0]) //nolint:gosec // Redis names scripts so
			return evaluate(args[0])
		case command == "EVALSHA":
			if source, ok := sources.Load(args[0]); ok {
				return evaluate(source.(string))
			}
		}
		return false
	})
	return m
}
