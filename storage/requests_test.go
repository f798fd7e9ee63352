package storage_test

import (
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
