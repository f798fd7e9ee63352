// Package migrate copies the content of one store into another, or into a file and back,
// while both are in use.
//
// # Guarantees
//
// A copy goes on where an earlier one stopped. Nothing that the target has is
// lost: where both hold a key with different values, they are merged. The
// target's revisions go on above the source's, so no client ever sees them go
// back. At the end everything is compared.
//
// # Caveats
//
// A deletion in the source that has left the history before the copy reads it is not repeated
// in the target.
package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tallyman/storage"
)

// Reader is the part of a store that a copy reads. storage.Backend is one.
type Reader interface {
	Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error)
	Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error)
	Window(ctx context.Context) (storage.Window, error)
}

// everything is the range of all keys; positions are those of copies.
const (
	firstKey, lastKey = "\x01", "\xff\xff\xff\xff"
	positions         = "/transfers/"
	pageSize          = 200
	logPage           = 500
	// logTimeout is the timeout of one page of changes, which is then retried.
	logTimeout = time.Minute
	// writers is the number of concurrent writes, which share an fsync
	// where the target groups them.
	writers = 16
)

// Merge returns the value for a key with the value from in the source and to in the target.
type Merge func(key string, from, to []byte) ([]byte, error)

// Terms returns the terms of a value, for the index of the target. Nil stands for a
// function that returns none.
type Terms func(key string, value []byte) ([]storage.TermChange, error)

// of returns no terms for a value that cannot be decoded: it is matched by no selector.
func (t Terms) of(key string, value []byte) []storage.TermChange {
	if t == nil {
		return nil
	}
	changes, err := t(key, value)
	if err != nil {
		return nil
	}
	return changes
}

// bodyOf returns the body of an entry. It is not nil, and fails for one that is corrupt.
func bodyOf(e *storage.Entry) ([]byte, error) {
	switch {
	case e == nil:
		return nil, nil
	case e.Err != nil:
		return nil, fmt.Errorf("%s: %w", e.Key, e.Err)
	case e.Value.Body() == nil:
		return []byte{}, nil
	}
	return e.Value.Body(), nil
}

// bodies asks for the bodies of entries alone.
var bodies = storage.Read{Sections: []string{storage.SectionBody}}

// Options configures Copy.
type Options struct {
	// From and To are the stores. Required.
	From Reader
	To   storage.Backend
	// Name of the source, under which the target remembers how far a copy came.
	Name string
	// Merge is required.
	Merge Merge
	// Terms returns the terms that a writer to To would give a value.
	Terms Terms
	// Brief, if set, returns the section SectionBrief that a writer to To would store with a value, nil
	// for none.
	Brief func(key string, value []byte) []byte
	// Progress, if set, is called now and then.
	Progress func(*Report)
	// Follow keeps copying changes until its context ends or the source closes.
	Follow context.Context
}

// copier is one Copy.
type copier struct {
	Options
	report Report
	at     position
	shown  time.Time
}

// Copy copies everything in From to To, and then the changes since. It does not compare;
// Compare does.
func Copy(ctx context.Context, o Options) (*Report, error) {
	c := &copier{Options: o}
	window, err := o.From.Window(ctx)
	if err != nil {
		return &c.report, err
	}
	if err := o.To.Advance(ctx, window.Current); err != nil {
		return &c.report, err
	}
	if err := c.load(ctx); err != nil {
		return &c.report, err
	}
	const tries = 5
	for i := 1; ; i++ {
		err := c.run(ctx)
		if errors.Is(err, storage.ErrFuture) { // a source that was restored from an older copy
			err = storage.ErrCompacted
		}
		if !errors.Is(err, storage.ErrCompacted) {
			return &c.report, err
		}
		if i == tries {
			return &c.report, fmt.Errorf("the source changes faster than it can be copied; raise imageapi.store.historybytes and historyminage: %w", err)
		}
		c.at = position{} // too far behind: go over all keys again
	}
}

func (c *copier) run(ctx context.Context) error {
	if !c.at.Copied {
		if err := c.all(ctx); err != nil {
			return err
		}
	}
	return c.changes(ctx)
}

func (c *copier) positionKey() string {
	return positions + fmt.Sprintf("%x", sha256.Sum256([]byte(c.Name)))[:16]
}

func (c *copier) load(ctx context.Context) error {
	entry, _, err := storage.GetEntry(ctx, c.To, c.positionKey(), bodies)
	if err != nil || entry == nil {
		return err
	}
	if err := json.Unmarshal(entry.Value.Body(), &c.at); err != nil {
		return fmt.Errorf("migrate: %s: %w", c.positionKey(), err)
	}
	return nil
}

func (c *copier) save(ctx context.Context) error {
	value, err := json.Marshal(c.at)
	if err != nil {
		return err
	}
	_, err = c.To.Commit(ctx, storage.Mutation{Key: c.positionKey(), Expect: storage.AnyRevision, Value: storage.Body(value)})
	return err
}

// all copies every key, from where the last copy stopped.
func (c *copier) all(ctx context.Context) error {
	if c.at.Revision == 0 {
		window, err := c.From.Window(ctx)
		if err != nil {
			return err
		}
		c.at = position{Revision: window.Current}
	}
	count, err := c.From.Scan(ctx, storage.ScanRequest{From: firstKey, To: lastKey, Limit: 1, KeysOnly: true, Count: true})
	if err != nil {
		return err
	}
	c.report.Total = count.Count
	for {
		// All pages are of one revision, after which the log goes on.
		page, err := c.From.Scan(ctx, storage.ScanRequest{
			From: max(firstKey, c.at.Key+"\x00"), To: lastKey, Limit: pageSize, Revision: c.at.Revision,
		})
		if err != nil {
			return err
		}
		if err := c.putAll(ctx, page.Entries); err != nil {
			return err
		}
		if len(page.Entries) > 0 {
			c.at.Key = page.Entries[len(page.Entries)-1].Key
		}
		c.at.Copied = !page.More
		if err := c.save(ctx); err != nil {
			return err
		}
		c.show(c.at.Copied)
		if c.at.Copied {
			return nil
		}
	}
}

func (c *copier) putAll(ctx context.Context, entries []storage.Entry) error {
	held, err := heldUnder(ctx, c.To, entries)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range entries {
		e := &entries[i]
		if !isPosition(e.Key) {
			group.Go(func() error { return c.put(ctx, e, nil, held[i]) })
		}
	}
	return group.Wait()
}

func isPosition(key string) bool { return strings.HasPrefix(key, positions) }

func (c *copier) show(last bool) {
	if c.Progress == nil || (!last && time.Since(c.shown) < 100*time.Millisecond) {
		return
	}
	c.shown = time.Now()
	c.Progress(&c.report)
}
