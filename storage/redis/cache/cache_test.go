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

// TestFresh: a value that lacks outdated sections is none for other reads, and the other way around.
func TestFresh(t *testing.T) {
	c := cache.New(1 << 20)
	all, fresh := &storage.Read{}, &storage.Read{Sections: []string{"brief"}, Fresh: true}
	c.Add("/a", &storage.Entry{Key: "/a", Revision: 7, Value: storage.Value{{Name: "body", Data: []byte("2")}, {Name: "brief", Data: []byte("1")}}}, all)
	if e := c.Get("/a", 7, fresh); e != nil {
		t.Errorf("an outdated section: %+v", e)
	}
	c.Add("/a", &storage.Entry{Key: "/a", Revision: 7}, fresh)
	if e := c.Get("/a", 7, fresh); e == nil || len(e.Value) > 0 {
		t.Errorf("no section: %+v", e)
	}
	if e := c.Latest("/a", all); e == nil || len(e.Value) != 2 {
		t.Errorf("all sections: %+v", e)
	}
	c.Drop(7)
	if c.Get("/a", 7, fresh) != nil || c.Get("/a", 7, all) != nil {
		t.Error("it is there after it was dropped")
	}
}
