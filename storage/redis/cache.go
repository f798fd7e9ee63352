package redis

import (
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// version is one value that a key had. It never changes.
type version struct {
	revision int64
	value    []byte
}

// cached is an element of the cache.
type cached struct {
	key   string
	value []byte
}

// overhead is about what an element takes besides its value.
const overhead = 200

// cache keeps values by revision, the least recently used going first. A
// revision has one value for ever, so what is in the cache is always true; which
// revision a key has now, the store says.
type cache struct {
	limit int64

	mu     sync.Mutex
	size   int64
	values *simplelru.LRU[int64, cached]
	newest map[string]int64 // of each key, the newest revision in values
}

func newCache(limit int64) *cache {
	c := &cache{limit: limit, newest: map[string]int64{}}
	c.values, _ = simplelru.NewLRU(math.MaxInt32, func(revision int64, v cached) { // fails for a size of 0 only
		c.size -= int64(len(v.key)+len(v.value)) + overhead
		if c.newest[v.key] == revision {
			delete(c.newest, v.key)
		}
	})
	return c
}

// latest returns the newest version of key in the cache, the zero version if
// there is none.
func (c *cache) latest(key string) version {
	c.mu.Lock()
	defer c.mu.Unlock()
	revision, ok := c.newest[key]
	if !ok {
		return version{}
	}
	v, _ := c.values.Get(revision)
	return version{revision, v.value}
}

func (c *cache) get(revision int64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values.Get(revision)
	return v.value, ok
}

// add keeps a version that may well be asked for again.
func (c *cache) add(key string, v version) { c.put(key, v, true) }

// offer keeps a version if there is room: a list of everything is not to push
// out what is in use.
func (c *cache) offer(key string, v version) { c.put(key, v, false) }

func (c *cache) put(key string, v version, force bool) {
	size := int64(len(key)+len(v.value)) + overhead
	c.mu.Lock()
	defer c.mu.Unlock()
	if size > c.limit/4 || c.values.Contains(v.revision) || (!force && c.size+size > c.limit) {
		return
	}
	c.values.Add(v.revision, cached{key, v.value})
	c.size += size
	c.newest[key] = max(c.newest[key], v.revision)
	for c.size > c.limit {
		c.values.RemoveOldest()
	}
}

// clear empties the cache. It is for a store that is not the same any more.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.values.Purge()
	c.size = 0
	clear(c.newest)
}
