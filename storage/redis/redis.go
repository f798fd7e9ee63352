// Package redis is the store for production: a storage.Backend in Redis (or
// Valkey), which any number of processes share.
//
// # Guarantees
//
// A commit is one script: it compares, writes, appends to the log and trims it
// in one atomic step of the server. A commit whose answer got lost and which is
// tried again takes effect once. Reads go to the master and are linearizable.
//
// Nothing is lost unless Redis loses it: acknowledged writes are as durable as Redis' own
// persistence, and Options.Replicas and Options.AOF can wait for more. If Redis does lose
// something (a fail-over, an eviction, a flush), that is noticed, reported to Options.OnLoss,
// and every watch is told 410 instead of going on over a gap.
//
// # Layout
//
// All keys start with the prefix in braces, which is one hash slot in a Cluster:
//
//	{tallyman}:meta            hash: format, id, revision, base, bases, compacted, bytes, rawbytes, logbytes, and the
//	                           sizes of the two indexes, objects and postings
//	{tallyman}:index           sorted set of "<key>\0<revision>", all of score 0
//	{tallyman}:terms           sorted set of "<term><key>", all of score 0
//	{tallyman}:indexes         hash: of each index of terms its state, as JSON
//	{tallyman}:log             stream; ids are <revision>-0; fields k (key), p (previous revision, 0 if none),
//	                           b (the store's revision before), c (last revision of the commit, if it is another),
//	                           w (the parts that it replaced), a and x (terms that it gave and took), d (deleted),
//	                           z (its size, with the parts that it replaced)
//	{tallyman}:value:<key>     hash: the current value, a field for each section and group of terms
//	{tallyman}:history:<key>   hash: replaced parts of values that the log still reaches
//	{tallyman}:commit:<token>  the revisions of a commit, for some seconds
//	{tallyman}:lock:<name>     the holder of a lock (Lock), for two seconds after its last sign of life
//	{tallyman}:lease:<name>    the holder of a lease (Lease, LeaseFor), for half a minute or the time that it asked for
//	{tallyman}:holds           hash: of each process the oldest revision that a list in progress needs, and the expiry
//	{tallyman}:processes       sorted set of the processes that use the store, with the newest format they know
//
// A part of a value is written once, and moved when it is replaced: a section, a chunk of
// a long section, or a group of terms. The log holds no values, so that following it costs
// little and a part is never there twice.
//
// Older versions of tallyman read and write older formats. Format 2 has no chunks. Format 1
// has no terms either, and values in {tallyman}:object:<key> and
// {tallyman}:version:<revision>. This version works in them until Upgrade; see there.
//
// # Caveats
//
// Keys hold no NUL byte. Redis 7.0 or Valkey 7.2 is the oldest that will do.
package redis

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage"
	"tallyman/storage/redis/cache"
	"tallyman/storage/section"
)

// ErrFormat is wrapped by the error of every call on a store whose format this
// version does not know. A newer version of tallyman made it.
var ErrFormat = errors.New("the store in Redis is not for this version")

const (
	// The formats that this version reads and writes: those without terms, without chunks,
	// and with both. Scripts name formats as digits.
	format1, format2, knownFormat = 1, 2, 3
	// formatAny is the format argument of scripts that work in all of them.
	formatAny = ""
	// ownConnections is how many connections the monitor has at most.
	ownConnections = 3
	// outcomeSpare is how much longer a commit's outcome is known than it may be
	// tried again, which Options.Timeout bounds.
	outcomeSpare = 10 * time.Second
)

// Store is a storage.Backend in Redis. Create it with Open.
type Store struct {
	storage.Holds
	opts      Options
	client    goredis.UniversalClient
	own       goredis.UniversalClient // the monitor's connections, which no other call can take
	commits   chan struct{}           // has an element for each commit in flight
	durable   chan *durableCommit     // commits that wait for others, to share a WAIT
	cache     *cache.Cache
	history   *history
	repairing atomic.Bool // an evicted index
	tail      tail
	done      chan struct{} // closed by Close
	stopped   sync.WaitGroup
	close     sync.Once

	meta, index, log, terms, indexes, processes, holds string // keys

	process    string       // the name of this process among all
	format     atomic.Int32 // format1 to knownFormat
	olderSeen  time.Time    // when an older process was seen last; the monitor's own
	lastLeased time.Time    // when the lease was renewed last; the monitor's own

	staleSince time.Time // since when Redis has lacked a seen revision; the monitor's own

	outage  atomic.Pointer[outage] // nil while Redis answers
	evicted atomic.Int64           // when an eviction was found last, in seconds
	seen    atomic.Int64           // newest revision that any answer showed

	mu      sync.Mutex
	id      string          // of the store, from meta
	cutter  *section.Cutter // of id
	changed chan struct{}   // closed and replaced when seen moves
	expired []logEntry      // to be trimmed by the next commit
}

var _ storage.Backend = (*Store)(nil)

// outage is why calls fail without being tried.
type outage struct{ err error }

// Open connects to the store, and makes it if it is not there. It fails if Redis
// answers and will not do. If Redis cannot be reached, the Store is returned all
// the same: its calls fail until Redis is there, and then do not.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.setDefaults()
	useLogger()
	process := rand.Text()
	if o.Client.ClientName == "" {
		o.Client.ClientName = clientName + process
	}
	own := o.Client
	own.PoolSize, own.MinIdleConns, own.MaxIdleConns = ownConnections, 0, 0
	s := &Store{
		opts: o, client: goredis.NewUniversalClient(&o.Client), own: goredis.NewUniversalClient(&own),
		commits: make(chan struct{}, max(1, o.Client.PoolSize*3/4)), durable: make(chan *durableCommit), cache: cache.New(o.CacheBytes),
		done: make(chan struct{}), changed: make(chan struct{}), process: process,
	}
	s.client.AddHook(counted{})
	s.format.Store(knownFormat) // until the store says otherwise
	s.meta, s.index, s.log, s.terms = s.key("meta"), s.key("index"), s.key("log"), s.key("terms")
	s.indexes, s.processes, s.holds = s.key("indexes"), s.key("processes"), s.key("holds")
	s.history = newHistory(s)
	if err := s.connect(ctx); isRefusal(err) {
		return nil, errors.Join(fmt.Errorf("redis: %w", err), s.client.Close(), s.own.Close())
	} else if err != nil {
		s.down(err)
	}
	background, cancel := context.WithCancel(context.Background())
	s.stopped.Go(func() {
		<-s.done
		cancel()
	})
	s.stopped.Go(func() { s.monitor(background) })
	s.stopped.Go(func() { s.keepTrimming(background) })
	for range durableBatches {
		s.stopped.Go(func() { s.keepCommitting(background) })
	}
	return s, nil
}

// Close implements storage.Backend.
func (s *Store) Close() error {
	err := storage.ErrClosed
	s.close.Do(func() {
		close(s.done)
		err = errors.Join(closeClient(s.client), closeClient(s.own)) // ends blocked calls, too
		s.stopped.Wait()
	})
	return err
}

func closeClient(c goredis.UniversalClient) error {
	err := c.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil // of a connection that a call in flight has given up
	}
	return err
}

// key returns one of the store's keys in Redis.
func (s *Store) key(name string) string { return "{" + s.opts.Prefix + "}:" + name }

func (s *Store) objectKey(key string) string      { return s.key("object:" + key) }
func (s *Store) versionKey(revision int64) string { return s.key("version:" + digits(revision)) }
func (s *Store) valueKey(key string) string       { return s.key("value:" + key) }
func (s *Store) historyKey(key string) string     { return s.key("history:" + key) }
func (s *Store) outcomeKey(token string) string   { return s.key("commit:" + token) }

// do makes one call within Options.Timeout, unless Redis is known to be away.
func (s *Store) do(ctx context.Context, call func(context.Context) error) error {
	if s.isClosed() {
		return storage.ErrClosed
	}
	if away := s.outage.Load(); away != nil {
		return away.err
	}
	bounded, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	err := call(bounded)
	switch {
	case err == nil:
		return nil
	case s.isClosed():
		return storage.ErrClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("redis did not answer within %s", s.opts.Timeout) // the caller's own time is not over
	}
	return err
}

func (s *Store) isClosed() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// clock is the last argument of scripts that make a revision.
func (s *Store) clock() string {
	if s.opts.Now == nil {
		return ""
	}
	return digits(s.opts.Now().UnixMicro())
}

// Window implements storage.Backend.
func (s *Store) Window(ctx context.Context) (storage.Window, error) {
	r, err := s.read(ctx, windowScript, []string{s.meta}, formatAny)
	if err != nil {
		return storage.Window{}, err
	}
	s.observe(r.integer(1))
	return storage.Window{Compacted: r.integer(0), Current: r.integer(1)}, nil
}

// Advance implements storage.Backend.
func (s *Store) Advance(ctx context.Context, revision int64) error {
	if err := storage.ValidateAdvance(revision); err != nil {
		return err
	}
	_, err := s.run(ctx, advanceScript, []string{s.meta}, formatAny, digits(revision), storage.KeptBases)
	return err
}

var (
	available = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "imageapi_store_redis_up",
		Help: "Whether Redis answers (1) or not (0).",
	})
	lossTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_redis_losses_total",
		Help: "Times that content was found missing from Redis: a lossy fail-over, a flush, an eviction.",
	})
	evictedTotal = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_redis_evicted_total",
		Help: "Objects that Redis was found to have evicted.",
	})
	roundTrips = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "imageapi_store_redis_round_trips_total",
		Help: "Commands and pipelines that were sent to Redis for requests.",
	})
)

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector {
	return []prometheus.Collector{available, lossTotal, evictedTotal, roundTrips}
}

// clientLog takes go-redis' log of single connections, which the monitor summarizes in one
// line.
type clientLog struct{}

func (clientLog) Printf(ctx context.Context, format string, v ...any) {
	slog.DebugContext(ctx, fmt.Sprintf(format, v...))
}

var useLogger = sync.OnceFunc(func() { goredis.SetLogger(clientLog{}) })
