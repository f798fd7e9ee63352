package storage

import (
	"context"
	"slices"
)

// Batch collects the mutations of several writes of objects, for one commit. Its zero value has
// none.
type Batch struct{ changes, last, conditions []Mutation }

type batchKey struct{}

// WithBatch returns a context with which objects are not written: the mutations are added to b.
// Reads with it see the state before them.
func WithBatch(ctx context.Context, b *Batch) context.Context {
	return context.WithValue(ctx, batchKey{}, b)
}

// BatchOf returns the Batch of a context, nil if it has none.
func BatchOf(ctx context.Context) *Batch {
	b, _ := ctx.Value(batchKey{}).(*Batch)
	return b
}

// Add adds a mutation, and conditions that the commit has besides (Conditions).
func (b *Batch) Add(m Mutation, conditions ...Mutation) {
	b.changes, b.conditions = append(b.changes, m), append(b.conditions, conditions...)
}

// AddLast adds a mutation that comes after all that Add adds.
func (b *Batch) AddLast(m Mutation) { b.last = append(b.last, m) }

// Changes reports whether b has a change of key.
func (b *Batch) Changes(key string) bool {
	return slices.ContainsFunc(slices.Concat(b.changes, b.last), func(m Mutation) bool { return m.Key == key && m.Changes() })
}

// Commit makes all changes, in the order in which they were added, and gives a lock back (WithLock). It returns false, and makes
// none, if a key is not at the revision that its change expects, and fails with
// ErrConditionFailed if a condition does not hold.
func (b *Batch) Commit(ctx context.Context, backend Backend) (committed bool, err error) {
	changes := slices.Concat(b.changes, b.last)
	if len(changes) == 0 {
		return true, nil
	}
	result, err := backend.Commit(withRelease(ctx), append(changes, b.conditions...)...)
	switch {
	case err != nil:
		return false, err
	case !result.Succeeded && result.Conflict >= len(changes):
		return false, ErrConditionFailed
	case result.Succeeded && !slices.ContainsFunc(changes, func(m Mutation) bool { return m.Changes() }):
		return true, backend.Confirm(ctx) // of the state that is as it was to become
	case result.Succeeded:
		if written, ok := ctx.Value(writtenKey{}).(map[string]int64); ok {
			for i := range changes {
				if changes[i].Operation == Put {
					written[changes[i].Key] = result.Revisions[i]
				}
			}
		}
	}
	return result.Succeeded, nil
}

type writtenKey struct{}

// WithWritten returns a context whose commit of a Batch adds to written, by key, the revisions of the entries
// that it has put.
func WithWritten(ctx context.Context, written map[string]int64) context.Context {
	return context.WithValue(ctx, writtenKey{}, written)
}

type prefetchedKey struct{}

// WithPrefetched returns a context with entries by key, nil for those that are not there, that were read
// for one Batch in one go, each in full.
func WithPrefetched(ctx context.Context, entries map[string]*Entry) context.Context {
	return context.WithValue(ctx, prefetchedKey{}, entries)
}

// Prefetch reads the entries under keys for WithPrefetched, but for those that WithLock has.
func Prefetch(ctx context.Context, b Backend, keys ...string) (map[string]*Entry, error) {
	entries, read := make(map[string]*Entry, len(keys)), takeRead(ctx)
	var missing []string
	for _, key := range keys {
		if e, known := read[key]; known {
			entries[key] = e
		} else {
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return entries, nil
	}
	result, err := b.Get(ctx, GetRequest{Keys: missing})
	if err != nil {
		return nil, err
	}
	for i, key := range missing {
		entries[key] = result.Entries[i]
	}
	return entries, nil
}

// Prefetched returns an entry of WithPrefetched. known is false if it has not been read.
func Prefetched(ctx context.Context, key string) (e *Entry, known bool) {
	entries, _ := ctx.Value(prefetchedKey{}).(map[string]*Entry)
	e, known = entries[key]
	return e, known
}

type touchKey struct{}

// WithTouch returns a context whose updates write an object that they leave as it is, too, if touch
// says so after the change: other writes that come from the same state fail then.
func WithTouch(ctx context.Context, touch func() bool) context.Context {
	return context.WithValue(ctx, touchKey{}, touch)
}

// Touches reports whether an object that an update leaves as it is is to be written.
func Touches(ctx context.Context) bool {
	touch, ok := ctx.Value(touchKey{}).(func() bool)
	return ok && touch()
}

type termsKey struct{}

// WithTerms returns a context whose updates of an object change its terms besides those that
// Index.Terms makes of it. An update that leaves the object as it is needs WithTouch.
func WithTerms(ctx context.Context, changes ...TermChange) context.Context {
	return context.WithValue(ctx, termsKey{}, changes)
}

// TermsOf returns the changes of WithTerms.
func TermsOf(ctx context.Context) []TermChange {
	changes, _ := ctx.Value(termsKey{}).([]TermChange)
	return changes
}
