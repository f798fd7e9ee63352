package storage

import "context"

// Lock is a lock of some names that is one for all processes on a store.
type Lock interface {
	// Unlock gives the lock back, if no commit has given it back, and reports whether it was kept until then.
	Unlock() (kept bool)
}

// LockFunc takes the lock of some names, all or none, and reads the entries under keys once it has it, nil for
// those that are not there.
type LockFunc func(ctx context.Context, keys []string, names ...string) (l Lock, read map[string]*Entry, err error)

// held is a Lock, and the entries that were read when it was taken, nil once they are used.
type held struct {
	lock Lock
	read map[string]*Entry
}

type heldKey struct{}

// WithLock returns a context for one Batch that is made under a lock. Its first Prefetch has the entries of
// read, nil for those that are not there, and its commit gives the lock back where the store can. With a nil Lock
// the lock stays.
func WithLock(ctx context.Context, l Lock, read map[string]*Entry) context.Context {
	return context.WithValue(ctx, heldKey{}, &held{l, read})
}

// takeRead returns the entries of WithLock to the first call; a second try needs newer ones.
func takeRead(ctx context.Context) map[string]*Entry {
	h, ok := ctx.Value(heldKey{}).(*held)
	if !ok {
		return nil
	}
	read := h.read
	h.read = nil
	return read
}

type releasedKey struct{}

// withRelease returns the context of the commit that gives the lock of WithLock back.
func withRelease(ctx context.Context) context.Context {
	if h, ok := ctx.Value(heldKey{}).(*held); ok && h.lock != nil {
		return context.WithValue(ctx, releasedKey{}, h.lock)
	}
	return ctx
}

// Released returns the Lock that a commit with this context is to give back if it succeeds, nil for none.
func Released(ctx context.Context) Lock {
	l, _ := ctx.Value(releasedKey{}).(Lock)
	return l
}
