package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"

	"tallyman/storage"
)

var errCorruptLog = errors.New("bolt: a log entry is cut short")

// stored is a value of the data bucket: the revision, then the bytes. Its slice
// points into the file and is valid only inside the transaction.
type stored struct {
	revision int64
	value    []byte
}

func encodeEntry(revision int64, value []byte) []byte {
	return append(encodeRevision(revision), value...)
}

// decodeEntry returns nil for a key that is absent.
func decodeEntry(b []byte) *stored {
	if len(b) < 8 {
		return nil
	}
	return &stored{revision: decodeRevision(b), value: b[8:]}
}

// entry returns a copy of e that outlives the transaction, nil for nil.
func (e *stored) entry(key string) *storage.Entry {
	if e == nil {
		return nil
	}
	return &storage.Entry{Key: key, Value: bytes.Clone(e.value), Revision: e.revision}
}

// encodeChange lays out a log value: previous revision, whether the key was
// deleted, then key, value and previous value, each with its length.
func encodeChange(c *storage.Change) []byte {
	b := make([]byte, 0, 32+len(c.Key)+len(c.Value)+len(c.PrevValue))
	b = binary.AppendUvarint(b, uint64(c.PrevRevision))
	deleted := byte(0)
	if c.Deleted() {
		deleted = 1
	}
	b = append(b, deleted)
	for _, field := range [][]byte{[]byte(c.Key), c.Value, c.PrevValue} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	return b
}

// changeView is a decoded log value whose slices point into the file.
type changeView struct {
	prevRevision    int64
	deleted         bool
	key, value, old []byte
}

func viewChange(b []byte) (changeView, error) {
	var v changeView
	prev, n := binary.Uvarint(b)
	if n <= 0 || len(b) < n+1 {
		return v, errCorruptLog
	}
	v.prevRevision, v.deleted = int64(prev), b[n] == 1
	b = b[n+1:]
	for _, field := range []*[]byte{&v.key, &v.value, &v.old} {
		size, n := binary.Uvarint(b)
		if n <= 0 || uint64(len(b)-n) < size {
			return v, errCorruptLog
		}
		*field, b = b[n:n+int(size)], b[n+int(size):]
	}
	return v, nil
}

// decodeChange returns a copy that outlives the transaction.
func decodeChange(revision int64, b []byte) (storage.Change, error) {
	v, err := viewChange(b)
	if err != nil {
		return storage.Change{}, err
	}
	c := storage.Change{Revision: revision, Key: string(v.key), PrevRevision: v.prevRevision}
	if !v.deleted {
		c.Value = bytes.Clone(v.value)
	}
	if v.prevRevision != 0 {
		c.PrevValue = bytes.Clone(v.old)
	}
	return c, nil
}
