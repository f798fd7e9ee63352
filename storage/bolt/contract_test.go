package bolt_test

import (
	"path/filepath"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/bolt"
	"tallyman/storage/storagetest"
)

func TestContract(t *testing.T) {
	storagetest.Run(t, func(t *testing.T, now func() time.Time) storage.Backend {
		return open(t, bolt.Options{Path: filepath.Join(t.TempDir(), "images.db"), Now: now})
	})
}

func TestHistory(t *testing.T) {
	open := func(t *testing.T, now func() time.Time, bounds storage.HistoryBounds) storage.Backend {
		return open(t, bolt.Options{Path: filepath.Join(t.TempDir(), "images.db"), Now: now, History: bounds})
	}
	storagetest.RunHistory(t, open)
	t.Run("Long", func(t *testing.T) { storagetest.RunLongHistory(t, open) })
}
