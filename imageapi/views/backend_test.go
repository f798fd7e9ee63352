package views

import (
	"context"
	"testing"

	"tallyman/imageapi/streams"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// ownMemory fails the test for a read into memory that is used again.
type ownMemory struct {
	storage.Backend
	t     *testing.T
	scans int
}

func (o *ownMemory) Scan(ctx context.Context, r storage.ScanRequest) (*storage.ScanResult, error) {
	o.scans++
	if storage.MemoryOf(ctx) != nil {
		o.t.Errorf("%s is read into memory that is used again", r.From)
	}
	return o.Backend.Scan(ctx, r)
}

// TestRecordsInOwnMemory: the records of a view, some of which are remembered, are not read into the memory of
// a page.
func TestRecordsInOwnMemory(t *testing.T) {
	names, err := streams.New("default")
	if err != nil {
		t.Fatal(err)
	}
	for prefix, view := range map[string]func(storage.Backend) *Backend{
		ImageStreamPrefix:    func(b storage.Backend) *Backend { return ImageStreams(b, names, streams.Hosts{}, nil) },
		ImageStreamTagPrefix: ImageStreamTags,
	} {
		b := &ownMemory{Backend: memory.New(memory.Options{}), t: t}
		if _, err := view(b).Scan(storage.WithMemory(t.Context(), &storage.Memory{}), storage.ScanRequest{From: prefix, To: prefix + "~"}); err != nil || b.scans == 0 {
			t.Errorf("%s: %d scans, %v", prefix, b.scans, err)
		}
	}
}
