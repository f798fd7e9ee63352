// Package storage is the room where Images are kept: k8s.io/apiserver's
// storage.Interface, implemented once, over a small Backend.
//
// A Backend is a revisioned, ordered, byte-valued map with a change log; Store
// turns it into a storage.Interface with Kubernetes' semantics for reads,
// optimistic concurrency, paging and watches. Store knows keys, bytes and
// revisions, and nothing about images.
//
// # Guarantees
//
//   - Reads are linearizable: they see every commit acknowledged before them.
//   - An object is encoded once, when it is written. GET, LIST and WATCH answers
//     in JSON are made of those bytes (see Encoded and EncodedList).
//   - A watcher sees every change after its resourceVersion exactly once and in
//     order, or is told 410 Gone (or to reconnect); nothing is skipped silently.
//   - One Follower for each Store reads the log, whatever the number of watches.
//
// # Caveats
//
// Objects do not expire: the ttl argument of Create and GuaranteedUpdate is
// ignored, as no resource served here has one.
package storage

import (
	"context"
	"errors"
)

// Errors of the Backend contract. Backends wrap them; callers use errors.Is.
var (
	// ErrCompacted is returned when a revision is asked for that is older than
	// the change log reaches.
	ErrCompacted = errors.New("revision is older than the change log")
	// ErrFuture is returned when a revision is asked for that the store has
	// not reached yet.
	ErrFuture = errors.New("revision is newer than the store")
	// ErrClosed is returned by every call on a Backend after Close.
	ErrClosed = errors.New("store is closed")
)

// Entry is one key with its current value.
type Entry struct {
	Key   string
	Value []byte
	// Revision is that of the commit that wrote Value.
	Revision int64
}

// Change is one entry of the log: what a commit did to one key.
type Change struct {
	Revision int64
	Key      string
	// Value is what was written; nil if the commit deleted the key.
	Value []byte
	// PrevValue and PrevRevision are what the key held before; PrevRevision
	// is 0 if the commit created the key.
	PrevValue    []byte
	PrevRevision int64
}

// Deleted reports whether the change removed its key.
func (c *Change) Deleted() bool { return c.Value == nil }

// ScanRequest asks for the entries with From <= key < To, in key order.
type ScanRequest struct {
	From, To string
	// Limit bounds the number of entries returned; 0 means no bound.
	Limit int
	// Revision asks for the state as it was right after that revision; 0 means
	// the current state.
	Revision int64
	// KeysOnly leaves Entry.Value nil.
	KeysOnly bool
	// Count asks for ScanResult.Count, which may cost a pass over the keys.
	Count bool
}

// ScanResult is one page of entries.
type ScanResult struct {
	Entries []Entry
	// More reports that entries after the last one returned were left off.
	More bool
	// Count is the number of entries with From <= key < To, whatever Limit
	// is; -1 if it was not asked for.
	Count int64
	// Revision is the one the page shows: the requested one, or the current.
	Revision int64
}

// Mutation is one conditional write.
type Mutation struct {
	Key string
	// Expect is the revision that the key must have for the commit to happen;
	// 0 means that the key must not exist.
	Expect int64
	// Value is what to write, and must not be nil unless Delete is set.
	Value []byte
	// Delete removes the key.
	Delete bool
}

// CommitResult says what became of a Mutation.
type CommitResult struct {
	// Succeeded is false if the key did not have the expected revision; then
	// nothing was written and Current is what the key holds (nil if absent).
	Succeeded bool
	Current   *Entry
	// Revision is that of the new change, or the store's current one if the
	// commit did not succeed.
	Revision int64
}

// Window is the range of revisions the store can answer for.
type Window struct {
	// Compacted is the oldest revision from which Log and Scan can start.
	Compacted int64
	// Current is the newest revision.
	Current int64
}

// Backend is a revisioned, ordered, byte-valued map with a change log. Keys hold
// no NUL byte. All methods are safe for concurrent use. Values that it returns
// are shared and not to be changed. storagetest.Run states the contract as
// tests; every implementation passes it.
//
// There is one revision counter for the whole store. A commit's revision is the
// larger of the last revision plus one and the current time in microseconds, so
// that a store which lost its last writes (a fail-over, a restored copy) never
// gives the same revision to a different state.
type Backend interface {
	// Get returns the entry under key, nil if there is none, and the store's
	// current revision, both from one point in time.
	Get(ctx context.Context, key string) (*Entry, int64, error)
	// Scan returns one page of a key range, now or at a past revision. It
	// fails with ErrCompacted or ErrFuture if the store cannot answer for
	// that revision.
	Scan(ctx context.Context, req ScanRequest) (*ScanResult, error)
	// Commit compares, writes and appends to the log in one atomic, durable
	// step: after a crash at any instant either all or nothing of it is there,
	// and all of it if Commit had returned.
	Commit(ctx context.Context, m Mutation) (*CommitResult, error)
	// Log returns, in order, up to limit changes after revision, and blocks
	// until there is at least one. It fails with ErrCompacted if changes
	// after revision have been dropped, or if revision is not one that the
	// store has had: a history that a fail-over lost cannot be gone on with.
	Log(ctx context.Context, revision int64, limit int) ([]Change, error)
	// Window returns the revisions the store can answer for.
	Window(ctx context.Context) (Window, error)
	// Compact drops the log up to and including revision.
	Compact(ctx context.Context, revision int64) error
	// Advance raises the store's revision to at least revision, so that a copy
	// of another store goes on from where that was. It changes nothing else.
	Advance(ctx context.Context, revision int64) error
	// Stats says how much the store holds.
	Stats(ctx context.Context) (BackendStats, error)
	// Close releases the store. Calls under way end with ErrClosed.
	Close() error
}

// BackendStats says how much a Backend holds.
type BackendStats struct {
	Window
	// Objects is the number of keys, LogEntries that of changes in the log.
	Objects, LogEntries int64
	// Bytes is the size of the current values, StoredBytes what they take
	// where they are kept, compressed if the Backend does that.
	Bytes, StoredBytes int64
}
