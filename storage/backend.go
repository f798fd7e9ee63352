// Package storage is the contract of the stores that Images are kept in.
//
// A Backend is a revisioned, ordered, byte-valued map with a change log. Its revisions are
// those of all keys together, and never go back. storage/objects makes a Kubernetes
// storage.Interface of one; bolt, redis and memory are implementations.
package storage

import (
	"context"
	"errors"
	"fmt"
)

// Errors of the Backend contract. Backends wrap them; callers use errors.Is.
var (
	// ErrCompacted is returned for a revision that is older than the history, or of
	// another history: a fail-over or a restored copy has lost it.
	ErrCompacted = errors.New("revision is older than the history")
	// ErrFuture is returned for a revision that the store has not reached yet.
	ErrFuture = errors.New("revision is newer than the store")
	// ErrClosed is returned by every call on a Backend after Close.
	ErrClosed = errors.New("store is closed")
	// ErrFull is returned by a commit that adds data to a store without free memory.
	// Nothing of the commit was written.
	ErrFull = errors.New("the image store is full")
	// ErrConditionFailed is returned for an object whose commit WithConditions has given a condition
	// that does not hold. Nothing was written.
	ErrConditionFailed = errors.New("a condition of the commit does not hold")
	// ErrNoIndex is returned by a scan by term where the index cannot answer: it is
	// not complete, or was not yet at that revision, or the store's format has none.
	ErrNoIndex = errors.New("the index of terms is not complete")
)

// Bounds of one read.
const (
	// MaxPageEntries is the maximum number of entries of a page.
	MaxPageEntries = 10_000
	// MaxPageBytes is the size, in bytes of sections, at which a page ends. The entry or
	// commit that reaches it is the last of the page.
	MaxPageBytes = 4 << 20
)

// MaxRevision is the largest revision that Advance accepts. Clients and scripts handle
// revisions as floating-point numbers, which are exact up to 2^53.
const MaxRevision = 1<<53 - 1<<40

// ValidateAdvance returns an error for a revision that Advance does not accept.
func ValidateAdvance(revision int64) error {
	if revision < 0 || revision > MaxRevision {
		return fmt.Errorf("revision %d is none: want one between 0 and %d", revision, int64(MaxRevision))
	}
	return nil
}

// KeptBases is the number of advanced revisions that a store remembers, the newest ones.
const KeptBases = 16

// Entry is one key with its current value.
type Entry struct {
	Key string
	// Value has the sections that were asked for.
	Value Value
	// Revision is that of the change that wrote Value.
	Revision int64
	// Terms are those of all groups, sorted, if they were asked for.
	Terms []Term
	// Err is set if a section is malformed or its checksum does not match; it wraps
	// ErrCorrupt. The other sections are good.
	Err error
}

// Change is one entry of the history: the effect of a commit on one key.
type Change struct {
	Revision int64
	Key      string
	// Commit is the revision of the last change of the same commit.
	Commit int64
	// Before is the revision of the store before this change: that of the change
	// before it, or one to which Advance has raised it.
	Before int64
	// Delete reports that the change removed its key.
	Delete bool
	// Current is the entry that the change made, nil if it removed the key; Previous
	// is the entry that it replaced, nil if it created the key. Both have the sections
	// that were asked for.
	Current, Previous *Entry
}

// Size returns the bytes of the sections of c.
func (c *Change) Size() int {
	size := 0
	for _, e := range []*Entry{c.Current, c.Previous} {
		if e != nil {
			size += e.Value.Size()
		}
	}
	return size
}

// CommitResult is the outcome of a commit.
type CommitResult struct {
	// Succeeded is false if a mutation's condition does not hold; then nothing was
	// written.
	Succeeded bool
	// Revision is that of the last change, or the store's current one if there was
	// none.
	Revision int64
	// Revisions has one element for each mutation of a commit that succeeded: the
	// revision of its change, 0 if it made none.
	Revisions []int64
	// Conflict is the index of the first mutation whose condition does not hold.
	Conflict int
	// Current is the entry in the way: the one under the key of the conflicting mutation
	// (nil if the key is absent), or one in the range that it wants empty, which has Key
	// and Revision only.
	Current *Entry
}

// Window is the range of revisions the store can answer for.
type Window struct {
	// Compacted is the oldest revision from which Log and Scan can start.
	Compacted int64
	// Current is the newest revision.
	Current int64
}

// Backend is a revisioned, ordered map with a history and an index of terms. All
// methods are safe for concurrent use. Values and terms that it returns are shared and
// not to be changed. storagetest.Run states the contract as tests; every
// implementation passes it.
//
// There is one revision counter for the whole store. A change's revision is the
// larger of the last revision plus one and the current time in microseconds, so
// that a store which lost its last writes (a fail-over, a restored copy) never
// gives the same revision to a different state. The changes of a commit have
// consecutive revisions, and no reader sees a part of a commit.
type Backend interface {
	// Get returns the entries under some keys and the store's current revision, all
	// from one point in time.
	Get(ctx context.Context, req GetRequest) (*GetResult, error)
	// Scan returns one page of a key range, or of the entries in it that carry a term,
	// now or at a past revision. It fails with ErrCompacted or ErrFuture if the store
	// cannot answer for that revision, and with ErrNoIndex for a term that the index
	// cannot answer for.
	Scan(ctx context.Context, req ScanRequest) (*ScanResult, error)
	// CountTerms returns, for each term, about how many entries carry it. It fails
	// with ErrNoIndex if the store's format has no index.
	CountTerms(ctx context.Context, terms []string) ([]int64, error)
	// Commit checks the conditions of all mutations, applies them and adds them to the
	// history in one atomic, durable step: after a crash at any instant either all or
	// nothing of it is there, and all of it if Commit had returned. It fails if
	// ValidateMutations does.
	Commit(ctx context.Context, mutations ...Mutation) (*CommitResult, error)
	// Confirm returns nil when all earlier commits are durable. A caller that finds its
	// change in the store already calls it before it acknowledges the change: the commit
	// may have been made and then reported as not durable.
	Confirm(ctx context.Context) error
	// Log returns changes in order. It blocks until there is at least one, unless
	// LogRequest.NoWait is set. It fails
	// with ErrCompacted if changes after the revision have been dropped, or if it is
	// not one that the store has had.
	Log(ctx context.Context, req LogRequest) ([]Change, error)
	// Window returns the revisions the store can answer for.
	Window(ctx context.Context) (Window, error)
	// Hold keeps the history after revision for a read in progress. See type Hold.
	Hold(revision int64) *Hold
	// Compact drops the history up to and including revision, but no part of a commit.
	Compact(ctx context.Context, revision int64) error
	// Advance raises the store's revision to at least revision, so that a copy
	// of another store goes on from where that was. It changes nothing else, and fails if
	// ValidateAdvance does.
	Advance(ctx context.Context, revision int64) error
	// IndexState returns how far the index called name is filled; the zero IndexState
	// if it was never begun. It fails with ErrNoIndex if the store's format has none.
	IndexState(ctx context.Context, name string) (IndexState, error)
	// FillIndex sets the terms of entries that were written without them, in one atomic
	// step that makes no revision and no change. It returns false, and does nothing, if
	// the state is not req.State any more.
	FillIndex(ctx context.Context, req FillRequest) (bool, error)
	// Stats says how much the store holds.
	Stats(ctx context.Context) (BackendStats, error)
	// Close releases the store. Calls in flight end with ErrClosed.
	Close() error
}

// BackendStats says how much a Backend holds.
type BackendStats struct {
	Window
	// Objects is the number of keys, LogEntries that of changes in the history, Terms
	// that of entries in the index.
	Objects, LogEntries, Terms int64
	// LogBytes is the size of the history, as HistoryBounds.MaxBytes bounds it.
	LogBytes int64
	// Bytes is the size of the current values, StoredBytes their size in the store, compressed
	// and encoded.
	Bytes, StoredBytes int64
}

// GetEntry returns the entry under one key, nil if there is none, and the store's
// current revision.
func GetEntry(ctx context.Context, b interface {
	Get(ctx context.Context, req GetRequest) (*GetResult, error)
}, key string, read Read) (*Entry, int64, error) {
	result, err := b.Get(ctx, GetRequest{Keys: []string{key}, Read: read})
	if err != nil {
		return nil, 0, err
	}
	return result.Entries[0], result.Revision, nil
}

// ErrCorrupt is wrapped by a Transformer's error about a value that will never be readable.
// Values that cannot be decoded are corrupt, too.
var ErrCorrupt = errors.New("the stored object is corrupt")

// CorruptError is the error of one entry whose stored bytes are malformed. It wraps
// ErrCorrupt.
type CorruptError struct{ Reason string }

// Error implements error.
func (e *CorruptError) Error() string { return ErrCorrupt.Error() + ": " + e.Reason }

// Unwrap returns ErrCorrupt.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }
