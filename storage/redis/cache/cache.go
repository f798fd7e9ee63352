// Package cache keeps values of a store in memory, by revision.
package cache

import (
	"math"
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"tallyman/storage"
)

// cached is an element of the Cache: one value that a key had, or the part of it that
// read asks for. It never changes.
type cached struct {
	entry *storage.Entry
	read  storage.Read
}

// covers reports whether c has all parts that read asks for.
func (c *cached) covers(read *storage.Read) bool {
	if read.Terms && !c.read.Terms {
		return false
	}
	if c.read.Sections == nil {
		return true
	}
	return read.Sections != nil && !slices.ContainsFunc(read.Sections, func(name string) bool { return !c.read.Wants(name) })
}

// cut returns the entry with the parts that read asks for.
func (c *cached) cut(read *storage.Read) *storage.Entry {
	e := *c.entry
	if read.Sections != nil {
		e.Value = nil
		for _, s := range c.entry.Value {
			if read.Wants(s.Name) {
				e.Value = append(e.Value, s)
			}
		}
	}
	if !read.Terms {
		e.Terms = nil
	}
	return &e
}

func (c *cached) size() int64 {
	return int64(len(c.entry.Key)+c.entry.Value.Size()+len(c.entry.Terms)*storage.TermSize) + overhead
}

// overhead is about the size of an element without its value.
const overhead = 200

// place is that of a value: the sections of a fresh one are not older than the body, so that it is none
// for other reads, nor they for it.
type place struct {
	revision int64
	fresh    bool
}

// Cache keeps values by revision, the least recently used going first. The value of a revision
// never changes, so cached values are always valid; the store has the present revision of a
// key.
type Cache struct {
	limit int64

	mu     sync.Mutex
	size   int64
	values *simplelru.LRU[place, *cached]
	newest map[string]int64 // of each key, the newest revision in values, but of fresh ones
}

// New returns an empty Cache of at most limit bytes.
func New(limit int64) *Cache {
	c := &Cache{limit: limit, newest: map[string]int64{}}
	c.values, _ = simplelru.NewLRU(math.MaxInt32, func(at place, v *cached) { // fails for a size of 0 only
		c.size -= v.size()
		if !at.fresh && c.newest[v.entry.Key] == at.revision {
			delete(c.newest, v.entry.Key)
		}
	})
	return c
}

// Latest returns the newest value of key in the cache, nil if there is none, or if it
// lacks a part that read asks for.
func (c *Cache) Latest(key string, read *storage.Read) *storage.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(key, c.newest[key], read)
}

// Get returns the value of key at a revision, nil if the cache lacks a part that read asks
// for. After a fail-over to a server whose clock is behind, a revision of the lost history
// may belong to another key.
func (c *Cache) Get(key string, revision int64, read *storage.Read) *storage.Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(key, revision, read)
}

func (c *Cache) find(key string, revision int64, read *storage.Read) *storage.Entry {
	v, ok := c.values.Get(place{revision, read.Fresh})
	if !ok || v.entry.Key != key || !v.covers(read) {
		return nil
	}
	return v.cut(read)
}

// Add keeps a value that may well be asked for again.
func (c *Cache) Add(key string, e *storage.Entry, read *storage.Read) { c.put(key, e, read, true) }

// Offer keeps a value if there is room: a list of everything must not push out values in use.
func (c *Cache) Offer(key string, e *storage.Entry, read *storage.Read) { c.put(key, e, read, false) }

func (c *Cache) put(key string, e *storage.Entry, read *storage.Read, force bool) {
	if e.Err != nil {
		return
	}
	v := &cached{e, *read}
	size := v.size()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := place{e.Revision, read.Fresh}
	known, ok := c.values.Peek(at)
	if size > c.limit/4 || ok && known.covers(read) || (!force && c.size+size > c.limit) {
		return
	}
	c.values.Remove(at) // it lacks something that this one has
	c.values.Add(at, v)
	c.size += size
	if !at.fresh {
		c.newest[key] = max(c.newest[key], e.Revision)
	}
	for c.size > c.limit {
		c.values.RemoveOldest()
	}
}

// Clear empties the cache. It is for a store that is not the same any more.
func (c *Cache) Clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values.Purge()
	c.size = 0
	clear(c.newest)
}

// Drop forgets the value of a revision.
func (c *Cache) Drop(revision int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values.Remove(place{revision, false})
	c.values.Remove(place{revision, true})
}
