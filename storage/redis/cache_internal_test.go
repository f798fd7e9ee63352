package redis

import (
	"testing"

	"tallyman/storage"
)

// TestCacheComparesKeys: a revision of a lost history may belong to another key by now.
func TestCacheComparesKeys(t *testing.T) {
	c := newCache(1 << 20)
	c.add("/a", &storage.Entry{Key: "/a", Revision: 7, Value: storage.Body([]byte("a"))}, &storage.Read{})
	if e := c.get("/a", 7, &storage.Read{}); e == nil || string(e.Value.Body()) != "a" {
		t.Errorf("/a at 7: %+v", e)
	}
	if e := c.get("/b", 7, &storage.Read{}); e != nil {
		t.Errorf("/b at 7: %+v", e)
	}
}
