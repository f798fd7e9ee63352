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
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"tallyman/storage"
	"tallyman/storage/section"
)

// ErrLocked is returned by Open when another process has the file open.
var ErrLocked = errors.New("the store is in use by another process")

const (
	// formatVersion is the layout of the file. Open upgrades a file of an older one, from
	// oldestFormat on, in one small transaction: values of the old layout are read as they
	// are, and stored anew when they are written or indexed. It refuses any other.
	formatVersion = 4
	oldestFormat  = 1
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
	baseKey      = []byte("base") // the newest revisions that no commit made, one after the other
	logBytesKey  = []byte("logbytes")
	secretKey    = []byte("chunksecret") // of section.NewCutter
)

// Options configures Open.
type Options struct {
	// Path of the file; it and its directory are created if missing. Required.
	Path string
	// History bounds the history.
	History storage.HistoryBounds
	// Now is the clock behind revisions. Nil means time.Now.
	Now func() time.Time
}

// Validate returns an error if o is invalid.
func (o *Options) Validate() error {
	if o.Path == "" {
		return errors.New("bolt: path is required")
	}
	if err := o.History.Validate(); err != nil {
		return fmt.Errorf("bolt: %w", err)
	}
	return nil
}

// Store is a storage.Backend in one file. Create it with Open.
type Store struct {
	storage.Holds
	opts     Options
	db       *bbolt.DB
	cutter   *section.Cutter
	requests chan *request
	done     chan struct{} // closed by Close
	stopped  chan struct{} // closed when the writer has ended
	close    sync.Once
	listener net.Listener // for Attach; nil if there is none

	mu        sync.Mutex
	current   int64 // newest revision
	compacted int64 // oldest revision the log can start from
	history   storage.HistorySize
	advanced  chan struct{} // closed and replaced at each commit
	counts    *simplelru.LRU[rest, int64]
}

var _ storage.Backend = (*Store)(nil)

// Open opens or creates the store. It fails with ErrLocked if another process
// has it open, and refuses a file of a format it does not know.
func Open(o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.History.SetDefaults()
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, fmt.Errorf("bolt: create directory: %w", err)
	}
	db, err := openFile(o.Path)
	if err != nil {
		return nil, err
	}
	s := &Store{
		opts:     o,
		db:       db,
		requests: make(chan *request),
		done:     make(chan struct{}),
		stopped:  make(chan struct{}),
		advanced: make(chan struct{}),
	}
	s.counts, _ = simplelru.NewLRU[rest, int64](keptCounts, nil) // fails for a size of 0 only
	if err := db.Update(s.load); err != nil {
		return nil, errors.Join(fmt.Errorf("bolt: open %s: %w", o.Path, err), db.Close())
	}
	go s.write()
	go s.keepTrimming()
	s.listen()
	return s, nil
}

// mapSize is the reserved address space, in bytes. Mapping a grown file again would block
// until all reads end.
const mapSize = 10 << 30

// fileOptions returns the options of bbolt.Open. Commits do not write the free list, whose
// size grows with deletions. Open rebuilds it.
func fileOptions() *bbolt.Options {
	o := &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true}
	if strconv.IntSize == 64 {
		o.InitialMmapSize = mapSize
	}
	return o
}

// openFile opens or creates the file. It returns ErrLocked if another process has it open.
func openFile(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, fileOptions())
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("bolt: open %s: %w", path, err)
	}
	return db, nil
}

// saveFreelist writes the free list, so that the next Open need not rebuild it.
func (s *Store) saveFreelist() error {
	s.db.NoFreelistSync = false
	return s.db.Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		return meta.Put(formatKey, slices.Clone(meta.Get(formatKey)))
	})
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
	got := decodeRevision(meta.Get(formatKey))
	if got < oldestFormat || got > formatVersion {
		return fmt.Errorf("format %d is not one that this version reads (%d to %d): run the version of tallyman that made it, or a newer one", got, oldestFormat, formatVersion)
	}
	if got != formatVersion {
		if err := meta.Put(formatKey, encodeRevision(formatVersion)); err != nil {
			return err
		}
		slog.Info("store upgraded", "path", s.opts.Path, "from", got, "to", formatVersion)
	}
	if meta.Get(secretKey) == nil {
		if err := meta.Put(secretKey, []byte(rand.Text())); err != nil {
			return err
		}
	}
	s.cutter = section.NewCutter(meta.Get(secretKey))
	for _, name := range [][]byte{dataBucket, logBucket, historyBucket, termsBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	s.current = decodeRevision(meta.Get(revisionKey))
	s.compacted = decodeRevision(meta.Get(compactedKey))
	s.history, err = historySize(tx)
	return err
}

// Close implements storage.Backend.
func (s *Store) Close() error {
	err := storage.ErrClosed
	s.close.Do(func() {
		close(s.done)
		if s.listener != nil {
			_ = s.listener.Close()
			_ = os.Remove(s.opts.Path + socketSuffix)
		}
		<-s.stopped
		err = errors.Join(s.saveFreelist(), s.db.Close())
	})
	return err
}

// Window implements storage.Backend. It is of the file, as every other read: a commit is seen by readers
// from the moment that its pages are written, which is before it is on disk and known in memory.
func (s *Store) Window(ctx context.Context) (w storage.Window, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		meta := tx.Bucket(metaBucket)
		w = storage.Window{Compacted: decodeRevision(meta.Get(compactedKey)), Current: decodeRevision(meta.Get(revisionKey))}
		return nil
	})
	return w, err
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
