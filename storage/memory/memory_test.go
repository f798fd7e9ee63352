package memory

import (
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/storagetest"
)

func TestContract(t *testing.T) {
	storagetest.Run(t, func(_ *testing.T, now func() time.Time) storage.Backend { return New(Options{Now: now}) })
}

func TestHistory(t *testing.T) {
	storagetest.RunHistory(t, func(_ *testing.T, now func() time.Time, bounds storage.HistoryBounds) storage.Backend {
		return New(Options{Now: now, History: bounds})
	})
}
