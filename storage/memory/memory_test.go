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
