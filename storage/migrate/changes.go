package migrate

import (
	"context"
	"errors"
	"time"

	"tallyman/storage"
)

// changes copies the changes in the source's log after the position, and with Follow the later
// ones.
func (c *copier) changes(ctx context.Context) error {
	for {
		window, err := c.From.Window(ctx)
		if err != nil {
			return c.end(err)
		}
		if window.Current < c.at.Revision {
			return storage.ErrFuture
		}
		if window.Current == c.at.Revision {
			if c.Follow == nil || c.Follow.Err() != nil {
				return c.To.Advance(ctx, window.Current)
			}
			select {
			case <-c.Follow.Done():
			case <-time.After(200 * time.Millisecond):
			}
			continue
		}
		changes, err := c.log(ctx)
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			continue // the source is slow
		}
		if err != nil {
			return c.end(err)
		}
		if len(changes) == 0 {
			c.at.Revision = window.Current // it was advanced, with no change
			continue
		}
		for i := range changes {
			if err := c.apply(ctx, &changes[i]); err != nil {
				return err
			}
		}
		if err := c.To.Advance(ctx, c.at.Revision); err != nil {
			return err
		}
		if err := c.save(ctx); err != nil {
			return err
		}
		c.show(false)
	}
}

// log reads changes that are there, none if there are none.
func (c *copier) log(ctx context.Context) ([]storage.Change, error) {
	ctx, cancel := context.WithTimeout(ctx, logTimeout)
	defer cancel()
	return c.From.Log(ctx, storage.LogRequest{After: c.at.Revision, Limit: logPage, NoWait: true})
}

// end makes the end of the source the end of following it.
func (c *copier) end(err error) error {
	if c.Follow != nil && errors.Is(err, storage.ErrClosed) {
		return ErrSourceClosed
	}
	return err
}

// ErrSourceClosed is returned by Copy when the source that it followed was closed.
// Copied again, the source can be read to its end.
var ErrSourceClosed = errors.New("the source was closed")

func (c *copier) apply(ctx context.Context, change *storage.Change) error {
	c.at.Revision = change.Revision
	switch {
	case isPosition(change.Key):
		return nil
	case change.Delete:
		return c.remove(ctx, change.Key, change.Previous)
	}
	entry, _, err := storage.GetEntry(ctx, c.To, change.Key, storage.Read{})
	if err != nil {
		return err
	}
	return c.put(ctx, change.Current, change.Previous, entry)
}

// position is how far a copy came.
type position struct {
	// Revision of the source up to which its changes are in the target.
	Revision int64 `json:"revision"`
	// Key up to which all keys were copied, if not Copied.
	Key string `json:"key,omitempty"`
	// Copied is set once all keys were.
	Copied bool `json:"copied"`
}
