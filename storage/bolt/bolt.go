// Package bolt is the embedded store: a storage.Backend in one bbolt file, for
// one process, with no other service to run.
//
// # Guarantees
//
// A commit is on disk (fsync) before it is acknowledged. The file survives
// SIGKILL and power loss at any instant: bbolt swaps its meta page last, so a
// commit is there whole or not at all.
//
// # Caveats
//
// One process at a time: a second one gets ErrLocked, but can read the store
// through the first (Attach). Commits from many
// goroutines share a transaction and its fsync, one at a time pays its own.
package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"tallyman/storage"
)

// ErrLocked is returned by Open when another process has the file open.
var ErrLocked = errors.New("the store is in use by another process")

const (
	// formatVersion is the layout of the file. Open upgrades oldFormat to it in one
	// small transaction: values of the old layout are read as they are, and stored anew
	// when they are written or indexed. It refuses any other.
	formatVersion = 2
	oldFormat     = 1
	lockTimeout   = time.Second
	// maxBatch bounds how many waiting commits share one transaction.
	maxBatch = 256
)

var (
	metaBucket    = []byte("meta")
	dataBucket    = []byte("data")    // key: record
	logBucket     = []byte("log")     // revision: logEntry
	historyBucket = []byte("history") // historyKey: a part that the log still reaches
	termsBucket   = []byte("terms")   // term and key of each entry that carries it

	formatKey    = []byte("format")
	revisionKey  = []byte("revision")
	compactedKey = []byte("compacted")
	baseKey      = []byte("base") // the newest revision that no commit made
)

// Options configures Open.
type Options struct {
	// Path of the file; it and its directory are created if missing. Required.
	Path string
	// LogMaxEntries bounds how many changes the log keeps. 0 means 10 000.
	LogMaxEntries int
	// LogMaxAge bounds how long the log keeps a change. 0 means one hour.
	// Watches and paged lists from before either bound get 410 Gone.
	LogMaxAge time.Duration
	// Now is the clock behind revisions. Nil means time.Now.
	Now func() time.Time
}

// Validate reports what is wrong with o.
func (o *Options) Validate() error {
	switch {
	case o.Path == "":
		return errors.New("bolt: path is required")
	case o.LogMaxEntries < 0:
		return fmt.Errorf("bolt: log entries: %d is negative", o.LogMaxEntries)
	case o.LogMaxAge < 0:
		return fmt.Errorf("bolt: log age: %s is negative", o.LogMaxAge)
	}
	return nil
}

// Store is a storage.Backend in one file. Create it with Open.
type Store struct {
	opts     Options
	db       *bbolt.DB
	requests chan *request
	done     chan struct{} // closed by Close
	stopped  chan struct{} // closed when the writer has ended
	close    sync.Once
	listener net.Listener // for Attach; nil if there is none

	mu         sync.Mutex
	current    int64         // newest revision
	compacted  int64         // oldest revision the log can start from
	logEntries int           // number of changes in the log
	advanced   chan struct{} // closed and replaced at each commit
}

var _ storage.Backend = (*Store)(nil)

// Open opens or creates the store. It fails with ErrLocked if another process
// has it open, and refuses a file of a format it does not know.
func Open(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.LogMaxEntries == 0 {
		o.LogMaxEntries = 10_000
	}
	if o.LogMaxAge == 0 {
		o.LogMaxAge = time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, fmt.Errorf("bolt: create directory: %w", err)
	}
	db, err := bbolt.Open(o.Path, 0o600, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("bolt: open %s: %w", o.Path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("bolt: open %s: %w", o.Path, err)
	}
	s := &Store{
		opts:     o,
		db:       db,
		requests: make(chan *request),
		done:     make(chan struct{}),
		stopped:  make(chan struct{}),
		advanced: make(chan struct{}),
	}
	if err := db.Update(s.load); err != nil {
		return nil, errors.Join(fmt.Errorf("bolt: open %s: %w", o.Path, err), db.Close())
	}
	go s.write()
	s.listen()
	return s, nil
}

// load reads the file's state, creating it first if the file is new.
func (s *Store) load(tx *bbolt.Tx) error {
	meta, err := tx.CreateBucketIfNotExists(metaBucket)
	if err != nil {
		return err
	}
	if meta.Get(formatKey) == nil {
		first := s.revisionAfter(0)
		for key, value := range map[string]int64{
			string(formatKey):    formatVersion,
			string(revisionKey):  first,
			string(baseKey):      first,
			string(compactedKey): first - 1,
		} {
			if err := meta.Put([]byte(key), encodeRevision(value)); err != nil {
				return err
			}
		}
	}
	switch got := decodeRevision(meta.Get(formatKey)); got {
	case formatVersion:
	case oldFormat:
		if err := meta.Put(formatKey, encodeRevision(formatVersion)); err != nil {
			return err
		}
		slog.Info("store upgraded", "path", s.opts.Path, "from", oldFormat, "to", formatVersion)
	default:
		return fmt.Errorf("format %d is not one that this version reads (%d): run the version of tallyman that made it, or a newer one", got, formatVersion)
	}
	for _, name := range [][]byte{dataBucket, logBucket, historyBucket, termsBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	s.current = decodeRevision(meta.Get(revisionKey))
	s.compacted = decodeRevision(meta.Get(compactedKey))
	s.logEntries = tx.Bucket(logBucket).Stats().KeyN
	return nil
}

// Close implements storage.Backend.
func (s *Store) Close() error {
	err := storage.ErrClosed
	s.close.Do(func() {
		close(s.done)
		if s.listener != nil {
			_ = s.listener.Close() // removes the socket, too
		}
		<-s.stopped
		err = s.db.Close()
	})
	return err
}

// Window implements storage.Backend.
func (s *Store) Window(ctx context.Context) (storage.Window, error) {
	if err := s.usable(ctx); err != nil {
		return storage.Window{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return storage.Window{Compacted: s.compacted, Current: s.current}, nil
}

func (s *Store) usable(ctx context.Context) error {
	select {
	case <-s.done:
		return storage.ErrClosed
	default:
		return ctx.Err()
	}
}

// view runs fn in a read transaction, which sees one point in time.
func (s *Store) view(ctx context.Context, fn func(*bbolt.Tx) error) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	err := s.db.View(fn)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		return storage.ErrClosed
	}
	return err
}

// revisionAfter returns the revision of a commit that follows last.
func (s *Store) revisionAfter(last int64) int64 {
	return max(last+1, s.opts.Now().UnixMicro())
}

func encodeRevision(r int64) []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(r))
}

func decodeRevision(b []byte) int64 {
	if len(b) < 8 {
		return 0
	}
	return int64(binary.BigEndian.Uint64(b))
}
