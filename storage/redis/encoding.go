package redis

import (
	"errors"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// codecs of a stored value, its first byte.
const (
	codecPlain = 'p'
	codecZstd  = 'z'
	// minCompress is the size under which compressing gains nothing.
	minCompress = 128
	// maxValue bounds what a value may unpack to.
	maxValue = 512 << 20
)

var errMalformed = errors.New("value is malformed")

// Both are safe for concurrent use and, with no stream, hold no goroutine.
var (
	compressor, _   = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(true))
	decompressor, _ = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxValue), zstd.WithDecoderConcurrency(0))
)

// encode returns what the commit script puts behind the revision: the size, the
// codec and the value.
func encode(value []byte) []byte {
	b := strconv.AppendInt(make([]byte, 0, len(value)/2+32), int64(len(value)), 10)
	b = append(b, ':')
	head := len(b)
	if len(value) >= minCompress {
		b = compressor.EncodeAll(value, append(b, codecZstd))
		if len(b)-head <= len(value) {
			return b
		}
	}
	return append(append(b[:head], codecPlain), value...)
}

// decode returns the revision and the value of a stored string.
func decode(stored string) (int64, []byte, error) {
	head, rest, ok := strings.Cut(stored, ":")
	size, body, sized := strings.Cut(rest, ":")
	if !ok || !sized || body == "" {
		return 0, nil, errMalformed
	}
	revision, err := strconv.ParseInt(head, 10, 64)
	if err != nil {
		return 0, nil, errMalformed
	}
	length, err := strconv.Atoi(size)
	if err != nil || length < 0 || length > maxValue {
		return 0, nil, errMalformed
	}
	switch body[0] {
	case codecPlain:
		return revision, []byte(body[1:]), nil
	case codecZstd:
		value, err := decompressor.DecodeAll([]byte(body[1:]), make([]byte, 0, min(length, 64*len(body))))
		if err != nil || len(value) != length {
			return 0, nil, errMalformed
		}
		return revision, value, nil
	}
	return 0, nil, errMalformed
}

// bound turns a key that bounds a range of keys into the one that bounds their
// members of the index. A final NUL stands for "right after this key".
func bound(key string) string {
	if after, ok := strings.CutSuffix(key, "\x00"); ok {
		return after + "\x00\xff"
	}
	return key + "\x00"
}

// splitMember takes a member of the index apart.
func splitMember(member string) (key string, revision int64, ok bool) {
	key, digits, ok := strings.Cut(member, "\x00")
	if !ok {
		return "", 0, false
	}
	revision, err := strconv.ParseInt(digits, 10, 64)
	return key, revision, err == nil
}
