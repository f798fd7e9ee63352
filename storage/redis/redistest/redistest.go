// Package redistest runs real Redis and Valkey processes for tests: single
// servers, Sentinel set-ups and Clusters, on loopback.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	goredis "github.com/redis/go-redis/v9"
)

// Flavors are the servers that everything is tested against.
var Flavors = []string{"redis-server", "valkey-server"}

// Durable are the arguments of a server that loses nothing it acknowledged.
var Durable = []string{"--appendonly", "yes", "--appendfsync", "always"}

// Server is one server process. It can be killed and started again.
type Server struct {
	// Addr is its host:port, which stays the same when it is started again.
	Addr string
	// Port is that of Addr.
	Port   int
	binary string
	args   []string
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	double *miniredis.Miniredis // set where there is no process
}

// Start starts a server, which ends with the test. binary is one of Flavors.
// args follow those that make it listen on a free port with its files in a
// directory of its own, and nothing saved.
func Start(t testing.TB, binary string, args ...string) *Server {
	t.Helper()
	const tries = 3 // another process may take the port first
	for i := 1; ; i++ {
		s := New(t, binary, args...)
		err := s.run()
		if err == nil {
			return s
		}
		if i == tries {
			t.Fatal(err)
		}
	}
}

// New is Start without starting.
func New(t testing.TB, binary string, args ...string) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("a short run starts no " + binary)
	}
	port := FreePort(t)
	s := &Server{Port: port, Addr: fmt.Sprintf("127.0.0.1:%d", port), binary: binary, dir: t.TempDir()}
	s.args = append([]string{"--port", fmt.Sprint(port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--repl-diskless-sync-delay", "0"}, args...)
	t.Cleanup(s.Kill)
	return s
}

// Run starts a server that is not running, and waits until it answers.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
}

func (s *Server) run() error {
	s.cmd = exec.Command(s.binary, s.args...) //nolint:gosec // the test's own server
	// The test may die without its cleanup.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := os.OpenFile(filepath.Join(s.dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.cmd.Stdout, s.cmd.Stderr = output, output
	if err := s.cmd.Start(); err != nil {
		return errors.Join(err, output.Close())
	}
	exited := make(chan struct{})
	s.exited = exited
	go func() {
		_ = s.cmd.Wait() // it is killed
		_ = output.Close()
		close(exited)
	}()
	return s.wait()
}

func (s *Server) wait() error {
	c := goredis.NewClient(&goredis.Options{Addr: s.Addr, MaxRetries: -1, DialTimeout: time.Second})
	defer func() { _ = c.Close() }()
	var err error
	for range 400 {
		// A server that wants a password, or loads its file, is up or soon will be.
		if err = c.Ping(context.Background()).Err(); err == nil || strings.Contains(err.Error(), "NOAUTH") || strings.Contains(err.Error(), "ERR unknown command") {
			return nil
		}
		select {
		case <-s.exited:
			output, _ := os.ReadFile(filepath.Join(s.dir, "output"))
			return fmt.Errorf("%s has exited:\n%s", s.binary, output)
		case <-time.After(25 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not answer: %w", s.binary, err)
}

// Kill ends the server at once, as a crash does. It does nothing to one that is
// not running.
func (s *Server) Kill() {
	if s.double != nil {
		s.double.Close()
	}
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// Pid is the process id of the server while it runs.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Pause stops the process, which then keeps its connections and answers nothing.
func (s *Server) Pause() { _ = s.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume ends Pause.
func (s *Server) Resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// LoseDisk makes the server fail to save, as a full disk does.
func (s *Server) LoseDisk(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	s.Command(t, "BGSAVE")
}

// Client returns a client of the server, which is closed with the test.
func (s *Server) Client(t testing.TB) *goredis.Client {
	c := goredis.NewClient(&goredis.Options{Addr: s.Addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// FreePort returns a port that nothing listens on.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().(*net.TCPAddr).Port
}

// Command sends one command to the server and fails the test if that fails.
func (s *Server) Command(t testing.TB, args ...any) any {
	t.Helper()
	c := goredis.NewClient(&goredis.Options{Addr: s.Addr})
	defer func() { _ = c.Close() }()
	answer, err := c.Do(t.Context(), args...).Result()
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return answer
}
