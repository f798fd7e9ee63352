package doctor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

// faulty is a storage with faults.
type faulty struct {
	driver.StorageDriver
	skew time.Duration
	fail string // the call that fails
}

var errFault = errors.New("access denied")

func (f *faulty) err(call string) error {
	if f.fail == call {
		return errFault
	}
	return nil
}

func (f *faulty) PutContent(ctx context.Context, path string, content []byte) error {
	return errors.Join(f.err("put"), f.StorageDriver.PutContent(ctx, path, content))
}

func (f *faulty) GetContent(ctx context.Context, path string) ([]byte, error) {
	content, err := f.StorageDriver.GetContent(ctx, path)
	return content, errors.Join(err, f.err("get"))
}

func (f *faulty) Move(ctx context.Context, from, to string) error {
	if err := f.err("move"); err != nil {
		return err
	}
	return f.StorageDriver.Move(ctx, from, to)
}

func (f *faulty) Delete(ctx context.Context, path string) error {
	return errors.Join(f.err("delete"), f.StorageDriver.Delete(ctx, path))
}

func (f *faulty) Stat(_ context.Context, path string) (driver.FileInfo, error) {
	if err := f.err("stat"); err != nil {
		return nil, err
	}
	return driver.FileInfoInternal{FileInfoFields: driver.FileInfoFields{Path: path, ModTime: time.Now().Add(-f.skew)}}, nil
}

// TestDriver: each call that fails is named, a clock that is wrong is, too, and nothing stays in the storage.
func TestDriver(t *testing.T) {
	for name, test := range map[string]struct {
		storage faulty
		want    Status
		message string
	}{
		"whole":          {faulty{}, OK, "written, read, renamed and deleted"},
		"no writing":     {faulty{fail: "put"}, Failed, "cannot be written: access denied"},
		"no reading":     {faulty{fail: "get"}, Failed, "cannot be read: access denied"},
		"no listing":     {faulty{fail: "stat"}, Failed, "cannot be found: access denied"},
		"no renaming":    {faulty{fail: "move"}, Failed, "cannot be renamed, as the end of each upload is: access denied"},
		"no deleting":    {faulty{fail: "delete"}, Failed, "cannot be deleted: access denied"},
		"a clock":        {faulty{skew: time.Minute}, Warning, "differs from this host's by 1m0s"},
		"a clock before": {faulty{skew: -time.Hour}, Warning, "differs from this host's by -1h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			test.storage.StorageDriver = inmemory.New()
			r := &report{}
			checkDriver(t.Context(), r, "storage.x", &test.storage)
			found := false
			for _, f := range r.findings {
				found = found || f.Status == test.want && strings.Contains(f.Message, test.message)
			}
			if !found || Worst(r.findings) != test.want {
				t.Errorf("got %+v", r.findings)
			}
			left, err := test.storage.List(t.Context(), "/")
			if err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}
