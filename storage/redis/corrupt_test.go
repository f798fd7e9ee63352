package redis_test

import (
	"errors"
	"testing"

	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

// TestCorruptSection: a value whose checksum does not match harms itself only, and can
// be deleted.
func TestCorruptSection(t *testing.T) {
	server := redistest.Any(t, flavor)
	s := open(t, redis.Options{}, server.Addr)
	put(t, s, "/a", "1", 0)
	bad := put(t, s, "/bad", "12345", 0)
	stored, _ := server.Command(t, "HGET", "{tallyman}:value:/bad", "body").(string)
	server.Command(t, "HSET", "{tallyman}:value:/bad", "body", stored[:len(stored)-1]+"6")
	r, err := s.Scan(t.Context(), storage.ScanRequest{From: "/", To: "0"})
	if err != nil || len(r.Entries) != 2 || r.Entries[0].Err != nil || !errors.Is(r.Entries[1].Err, storage.ErrCorrupt) {
		t.Errorf("a scan: %+v, %v", r, err)
	}
	if e, _, err := storage.GetEntry(t.Context(), s, "/bad", storage.Read{}); err != nil || !errors.Is(e.Err, storage.ErrCorrupt) || e.Revision != bad {
		t.Errorf("a read: %+v, %v", e, err)
	}
	if r, err := s.Commit(t.Context(), storage.Mutation{Operation: storage.Delete, Key: "/bad", Expect: bad}); err != nil || !r.Succeeded {
		t.Errorf("a deletion: %+v, %v", r, err)
	}
	if log, err := s.Log(t.Context(), storage.LogRequest{After: bad}); err != nil || len(log) != 1 || !errors.Is(log[0].Previous.Err, storage.ErrCorrupt) {
		t.Errorf("the history: %+v, %v", log, err)
	}
}
