// Package check compares the parts of a store with each other: values with their checksums,
// the index with the values, the history with the entries.
package check

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"tallyman/storage"
)

// Reader is a store as Check reads it. storage.Backend is one.
type Reader interface {
	Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error)
	Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error)
	Window(ctx context.Context) (storage.Window, error)
	Stats(ctx context.Context) (storage.BackendStats, error)
	IndexState(ctx context.Context, name string) (storage.IndexState, error)
}

// Options configures Check.
type Options struct {
	// Store is the store to check. It may be in use.
	Store Reader
	// Index is the name of the index of terms.
	Index string
	// Terms returns the changes of terms that a writer makes with a value. It fails if
	// the value cannot be decoded.
	Terms func(key string, value []byte) ([]storage.TermChange, error)
	// Partial reports that a value does not show all of its terms. Nil means that all do.
	Partial func(value []byte) bool
	// Problem is called with each problem found: a key, or "history" or "index", and a
	// description.
	Problem func(where, what string)
	// Progress, if set, is called after each page of values with the number of entries that were read, and of
	// those that there were at the start.
	Progress func(read, total int64)
}

// Report has the numbers of checked parts, and the findings.
type Report struct {
	// Entries and Changes count the entries and changes that were read.
	Entries, Changes int64
	// Format1 is set if the store's format has no index.
	Format1 bool
	// Index is the state of the index. Terms is the number of terms of all entries.
	Index storage.IndexState
	Terms int64
	// Problems is the number of problems found.
	Problems int64
}

const (
	page              = 200
	firstKey, lastKey = "\x01", "\xff\xff\xff\xff"
)

// checker is one Check.
type checker struct {
	Options
	report Report
	// entries are the revisions of all keys in the state after revision.
	entries  map[string]int64
	revision int64
	total    int64 // entries at the start
}

// Check reads the whole store. It returns an error only if the store cannot be read.
func Check(ctx context.Context, o Options) (*Report, error) {
	c := &checker{Options: o, entries: map[string]int64{}}
	var err error
	c.report.Index, err = o.Store.IndexState(ctx, o.Index)
	if c.report.Format1 = errors.Is(err, storage.ErrNoIndex); err != nil && !c.report.Format1 {
		return &c.report, err
	}
	before, err := o.Store.Stats(ctx)
	if err != nil {
		return &c.report, err
	}
	c.total = before.Objects
	if err := c.values(ctx); err != nil {
		return &c.report, fmt.Errorf("check the values: %w", err)
	}
	// In a store that was not changed meanwhile, the index has just the terms of entries.
	if before.Current == c.revision && c.report.Index.Complete && before.Terms != c.report.Terms {
		c.problem("index", fmt.Sprintf("it has %d entries, the objects have %d terms", before.Terms, c.report.Terms))
	}
	if err := c.history(ctx); err != nil {
		return &c.report, fmt.Errorf("check the history: %w", err)
	}
	return &c.report, nil
}

func (c *checker) problem(where, what string) {
	c.report.Problems++
	if c.Problem != nil {
		c.Problem(where, what)
	}
}

// values reads all entries at one revision.
func (c *checker) values(ctx context.Context) error {
	next := firstKey
	for {
		result, err := c.Store.Scan(ctx, storage.ScanRequest{From: next, To: lastKey, Limit: page, Revision: c.revision, Read: storage.Read{Terms: true}})
		if err != nil {
			return err
		}
		c.revision = result.Revision
		for i := range result.Entries {
			c.entry(&result.Entries[i])
		}
		if c.Progress != nil {
			c.Progress(c.report.Entries, c.total)
		}
		if !result.More {
			return nil
		}
		next = result.Entries[len(result.Entries)-1].Key + "\x00"
	}
}

func (c *checker) entry(e *storage.Entry) {
	c.report.Entries++
	c.report.Terms += int64(len(e.Terms))
	c.entries[e.Key] = e.Revision
	if e.Err != nil {
		c.problem(e.Key, e.Err.Error())
		return
	}
	changes, err := c.Terms(e.Key, e.Value.Body())
	if err != nil {
		c.problem(e.Key, err.Error())
		return
	}
	if !c.report.Index.Complete {
		return
	}
	var want []storage.Term
	for i := range changes {
		want = storage.MergeTerms(want, changes[i].Apply(nil))
	}
	for _, term := range want {
		if !storage.HasTerm(e.Terms, term) {
			c.problem(e.Key, "it is not in the index under all of its terms")
			return
		}
	}
	if len(changes) > 0 && !slices.Equal(want, e.Terms) && len(e.Terms) > len(want) && (c.Partial == nil || !c.Partial(e.Value.Body())) {
		c.problem(e.Key, "it is in the index under terms that it does not have")
	}
}

// history reads all changes. Each must follow the one before it and replace its result, and
// the last change of each key must have left the present entry.
func (c *checker) history(ctx context.Context) error {
	window, err := c.Store.Window(ctx)
	if err != nil {
		return err
	}
	after, keys := window.Compacted, map[string]int64{}
	for after < c.revision {
		changes, err := c.log(ctx, after)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			break // the revision was raised without a change, or changes are missing
		}
		if errors.Is(err, storage.ErrCompacted) {
			c.problem("history", fmt.Sprintf("the changes after %d cannot be read: %v", after, err))
			return nil
		}
		if err != nil {
			return err
		}
		for i := range changes {
			after = changes[i].Revision
			if after > c.revision {
				break
			}
			c.change(&changes[i], keys)
		}
	}
	for key, revision := range keys {
		if c.entries[key] != revision {
			c.problem(key, fmt.Sprintf("the history leaves it at revision %d, it is at %d", revision, c.entries[key]))
		}
	}
	for key, revision := range c.entries {
		if _, known := keys[key]; !known && revision > window.Compacted {
			c.problem(key, fmt.Sprintf("the history lacks the change %d that made it", revision))
		}
	}
	return nil
}

// log reads changes that are there, or fails with context.DeadlineExceeded.
func (c *checker) log(ctx context.Context, after int64) ([]storage.Change, error) {
	const patience = 3 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.Store.Log(ctx, storage.LogRequest{After: after, Limit: page})
}

func (c *checker) change(change *storage.Change, keys map[string]int64) {
	c.report.Changes++
	if last, known := keys[change.Key]; known && change.Previous != nil && change.Previous.Revision != last {
		c.problem(change.Key, fmt.Sprintf("the change %d replaced revision %d, but the one before it left %d", change.Revision, change.Previous.Revision, last))
	}
	keys[change.Key] = 0
	if !change.Delete {
		keys[change.Key] = change.Revision
	}
	for _, e := range []*storage.Entry{change.Previous, change.Current} {
		if e != nil && e.Err != nil {
			c.problem(change.Key, fmt.Sprintf("the value of revision %d in the history: %v", e.Revision, e.Err))
		}
	}
}
