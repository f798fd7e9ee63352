package cache_test

import (
	"testing"

	"tallyman/storage"
	"tallyman/storage/redis/cache"
)

// TestComparesKeys: a revision of a lost history may belong to another key by now.
func TestComparesKeys(t *testing.T) {
	c := cache.New(1 << 20)
	c.Add("/a", &storage.Entry{Key: "/a", Revision: 7, Value: storage.Body([]byte("a"))}, &storage.Read{})
	if e := c.Get("/a", 7, &storage.Read{}); e == nil || string(e.Value.Body()) != "a" {
		t.Errorf("/a at 7: %+v", e)
	}
	if e := c.Get("/b", 7, &storage.Read{}); e != nil {
		t.Errorf("/b at 7: %+v", e)
	}
}
