package bolt

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// compactBytes is the size of CompactFile's transactions.
const compactBytes = 16 << 20

// CompactFile rewrites the file at path without its free pages, and returns the file sizes
// in bytes. It returns ErrLocked if a process has the file open. On failure the old file
// stays.
func CompactFile(path string) (before, after int64, err error) {
	if before, err = sizeOf(path); err != nil { // or a file would be created
		return 0, 0, err
	}
	from, err := openFile(path)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	fresh := path + ".compact"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) { // of an earlier try
		return 0, 0, fmt.Errorf("bolt: %w", err)
	}
	if err := copyFile(fresh, from); err != nil {
		return 0, 0, errors.Join(fmt.Errorf("bolt: compact %s: %w", path, err), os.Remove(fresh))
	}
	if after, err = sizeOf(fresh); err != nil {
		return 0, 0, err
	}
	if err := os.Rename(fresh, path); err != nil { // while from keeps others out
		return 0, 0, fmt.Errorf("bolt: %w", err)
	}
	return before, after, nil
}

// copyFile copies from into a new file at path and syncs it.
func copyFile(path string, from *bbolt.DB) (err error) {
	o := fileOptions()
	o.NoFreelistSync, o.InitialMmapSize = false, 0
	to, err := bbolt.Open(path, 0o600, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := bbolt.Compact(to, from, compactBytes); err != nil {
		return err
	}
	return to.Sync()
}

func sizeOf(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("bolt: %w", err)
	}
	return info.Size(), nil
}
