package storage_test

import (
	"bytes"
	"context"
	"math"
	"testing"

	"tallyman/storage"
)

func TestPageSize(t *testing.T) {
	for limit, want := range map[int]int{
		math.MinInt: storage.MaxPageEntries, -1: storage.MaxPageEntries, 0: storage.MaxPageEntries,
		1: 1, storage.MaxPageEntries: storage.MaxPageEntries, storage.MaxPageEntries + 1: storage.MaxPageEntries, math.MaxInt: storage.MaxPageEntries,
	} {
		if got := (&storage.ScanRequest{Limit: limit}).PageSize(); got != want {
			t.Errorf("a page of a scan with limit %d has %d entries, want %d", limit, got, want)
		}
		if got := (&storage.LogRequest{Limit: limit}).PageSize(); got != want {
			t.Errorf("a page of the log with limit %d has %d changes, want %d", limit, got, want)
		}
	}
}

// TestMemory: slices that are taken keep their content until a Reset, and a page of the size of the one before needs no
// memory of its own.
func TestMemory(t *testing.T) {
	m := &storage.Memory{}
	page := func(content byte) {
		m.Reset()
		var taken [][]byte
		for size := range 100 {
			b := m.Take(size * 100)
			if len(b) != 0 || cap(b) != size*100 {
				t.Fatalf("%d bytes of %d for %d", len(b), cap(b), size*100)
			}
			b = b[:cap(b)]
			for i := range b {
				b[i] = content + byte(size)
			}
			taken = append(taken, b)
		}
		for size, b := range taken {
			if bytes.Count(b, []byte{content + byte(size)}) != len(b) {
				t.Fatalf("value %d was written over", size)
			}
		}
	}
	for content := range byte(5) {
		page(content)
	}
	if n := testing.AllocsPerRun(10, func() {
		m.Reset()
		for range 100 {
			m.Take(4000)
		}
	}); n > 0 {
		t.Errorf("%v allocations for a page like the one before", n)
	}
	var none *storage.Memory
	none.Reset()
	if b := none.Take(5); b == nil || cap(b) != 5 {
		t.Errorf("without a Memory there are %d bytes", cap(b))
	}
	ctx := storage.WithMemory(context.Background(), m)
	if storage.MemoryOf(ctx) != m || storage.MemoryOf(context.Background()) != nil || storage.MemoryOf(storage.WithMemory(ctx, nil)) != nil {
		t.Error("a context does not have its memory")
	}
}
