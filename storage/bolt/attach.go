package bolt

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"path/filepath"
	"time"

	"tallyman/storage"
)

// The process that has the file open lets others of the same user read and change it,
// through a socket beside the file: so a store can be looked at and moved, and its process asked for
// something, while it is in use.

const (
	socketSuffix = ".sock"
	// attachWait bounds how long a read of the log by another process blocks.
	attachWait = time.Second
)

func init() { gob.Register(&storage.CorruptError{}) } // for Entry.Err

// server has the calls for other processes.
type server struct{ store *Store }

// Result carries the result of a call. The errors that callers tell apart cross the socket by
// name.
type Result struct {
	Scan    *storage.ScanResult
	Changes []storage.Change
	Stats   storage.BackendStats
	Index   storage.IndexState
	Commit  *storage.CommitResult
	Failure string
}

var failures = map[string]error{
	"compacted": storage.ErrCompacted, "future": storage.ErrFuture, "closed": storage.ErrClosed, "timeout": context.DeadlineExceeded, "noindex": storage.ErrNoIndex,
}

func (r *Result) fail(err error) error {
	for name, known := range failures {
		if errors.Is(err, known) {
			r.Failure = name
			return nil
		}
	}
	return err
}

// Scan is Store.Scan.
func (r *server) Scan(args storage.ScanRequest, result *Result) (err error) {
	result.Scan, err = r.store.Scan(context.Background(), args)
	return result.fail(err)
}

// Log is Store.Log, but gives up after a while.
func (r *server) Log(args storage.LogRequest, result *Result) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), attachWait)
	defer cancel()
	result.Changes, err = r.store.Log(ctx, args)
	return result.fail(err)
}

// Stats is Store.Stats.
func (r *server) Stats(_ struct{}, result *Result) (err error) {
	result.Stats, err = r.store.Stats(context.Background())
	return result.fail(err)
}

// Window is Store.Window.
func (r *server) Window(_ struct{}, result *Result) (err error) {
	result.Stats.Window, err = r.store.Window(context.Background())
	return result.fail(err)
}

// IndexState is Store.IndexState.
func (r *server) IndexState(name string, result *Result) (err error) {
	result.Index, err = r.store.IndexState(context.Background(), name)
	return result.fail(err)
}

// Commit is Store.Commit.
func (r *server) Commit(mutations []storage.Mutation, result *Result) (err error) {
	result.Commit, err = r.store.Commit(context.Background(), mutations...)
	return result.fail(err)
}

// listenPrivate listens on a socket that only this user can open. The socket is made in a
// directory of this user's alone, because its mode can be set only once it exists.
func listenPrivate(path string) (net.Listener, error) {
	private, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(private) }()
	made := filepath.Join(private, "s")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, err
	}
	listener.SetUnlinkOnClose(false) // it has another name by then
	err = os.Chmod(made, 0o600)
	if err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}

// listen opens the socket. A store without it works as well.
func (s *Store) listen() {
	path := s.opts.Path + socketSuffix
	_ = os.Remove(path) // of a process that was killed: the file is ours alone
	listener, err := listenPrivate(path)
	if err != nil {
		slog.Warn("store not readable by other processes while it is open", "err", err)
		return
	}
	calls := rpc.NewServer()
	if err := calls.RegisterName("Store", &server{s}); err != nil {
		slog.Warn("store not readable by other processes while it is open", "err", err)
		return
	}
	s.listener = listener
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return // the store is closed
			}
			go calls.ServeConn(connection)
		}
	}()
}

// Attached reads and changes a store that another process has open. Create it with Attach.
type Attached struct{ client *rpc.Client }

// Attach connects to the process that has the store at path open.
func Attach(path string) (*Attached, error) {
	client, err := rpc.Dial("unix", path+socketSuffix)
	if err != nil {
		return nil, fmt.Errorf("bolt: attach to %s: %w", path, err)
	}
	return &Attached{client}, nil
}

// Close ends the connection. The store stays open in the other process.
func (a *Attached) Close() error { return a.client.Close() }

func (a *Attached) call(ctx context.Context, method string, args any) (*Result, error) {
	result := &Result{}
	call := a.client.Go("Store."+method, args, result, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var fault rpc.ServerError
	switch {
	case call.Error == nil && result.Failure != "":
		return nil, failures[result.Failure]
	case call.Error == nil || errors.As(call.Error, &fault):
		return result, call.Error
	}
	return nil, fmt.Errorf("%w: %w", storage.ErrClosed, call.Error) // the other process has ended
}

// Scan is Store.Scan.
func (a *Attached) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	result, err := a.call(ctx, "Scan", req)
	if err != nil {
		return nil, err
	}
	return result.Scan, nil
}

// Log is Store.Log, but without NoWait it fails with context.DeadlineExceeded if there is
// no change for a second.
func (a *Attached) Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error) {
	result, err := a.call(ctx, "Log", req)
	if err != nil {
		return nil, err
	}
	return result.Changes, nil
}

// Stats is Store.Stats.
func (a *Attached) Stats(ctx context.Context) (storage.BackendStats, error) {
	result, err := a.call(ctx, "Stats", struct{}{})
	if err != nil {
		return storage.BackendStats{}, err
	}
	return result.Stats, nil
}

// Window is Store.Window.
func (a *Attached) Window(ctx context.Context) (storage.Window, error) {
	result, err := a.call(ctx, "Window", struct{}{})
	if err != nil {
		return storage.Window{}, err
	}
	return result.Stats.Window, nil
}

// IndexState is Store.IndexState.
func (a *Attached) IndexState(ctx context.Context, name string) (storage.IndexState, error) {
	result, err := a.call(ctx, "IndexState", name)
	if err != nil {
		return storage.IndexState{}, err
	}
	return result.Index, nil
}

// Commit is Store.Commit.
func (a *Attached) Commit(ctx context.Context, mutations ...storage.Mutation) (*storage.CommitResult, error) {
	result, err := a.call(ctx, "Commit", mutations)
	if err != nil {
		return nil, err
	}
	return result.Commit, nil
}
