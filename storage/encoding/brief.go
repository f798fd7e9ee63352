package encoding

import (
	"bytes"
	"hash/crc32"
	"strconv"
)

// Brief is stored beside an object for answers that need its metadata and something that is made of
// the object, such as the row of a table.
type Brief struct {
	// Head is the object's JSON up to the end of its metadata, for NewSplicer.
	Head []byte
	// Extra is made of the object besides.
	Extra []byte
}

// AppendBrief appends a Brief of the object with this JSON. version says how extra is made. The
// result is another one whenever data is. It returns false for JSON that has no Splicer.
func AppendBrief(dst []byte, version string, data, extra []byte) ([]byte, bool) {
	s, ok := NewSplicer(data)
	if !ok {
		return dst, false
	}
	head := s.data[:skipObject(s.data, s.offset)]
	dst = append(append(dst, version...), '\n')
	dst = append(strconv.AppendUint(dst, uint64(crc32.Checksum(data, castagnoli)), 16), '\n')
	dst = append(strconv.AppendInt(dst, int64(len(head)), 10), '\n')
	return append(append(dst, head...), extra...), true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ParseBrief returns the Brief that AppendBrief has made with the same version. It returns false for
// other bytes.
func ParseBrief(data []byte, version string) (b Brief, ok bool) {
	made, rest, _ := bytes.Cut(data, []byte("\n"))
	_, rest, _ = bytes.Cut(rest, []byte("\n"))
	size, rest, ok := bytes.Cut(rest, []byte("\n"))
	length, err := strconv.Atoi(string(size))
	if !ok || string(made) != version || err != nil || length < 0 || length > len(rest) {
		return b, false
	}
	return Brief{rest[:length], rest[length:]}, true
}
