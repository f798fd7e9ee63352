// Package section encodes the sections of stored values: compressed where that saves
// space, and with a checksum.
//
// An encoded section is text up to its codec, so that the scripts of storage/redis can
// read the size: "<size>:<codec><data>". Size is that of the data when decoded.
package section

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"strconv"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// ErrMalformed is returned for bytes that are no encoded section, or one whose
// checksum does not match.
var ErrMalformed = errors.New("section is malformed")

// Codecs, the byte before the data.
const (
	codecPlain   = 'p' // the data as it is, without a checksum: written by format 1 only
	codecChecked = 'c' // CRC-32C of the data, 4 bytes, then the data
	codecZstd    = 'z' // a zstd frame, which has a checksum
	codecS2      = 's' // CRC-32C of the data, 4 bytes, then the data as a block of S2
)

const (
	minCompress = 128       // below it compressing gains nothing
	maxSize     = 512 << 20 // of the data of one section
)

// Both are safe for concurrent use and, with no stream, hold no goroutine.
var (
	compressor, _   = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderCRC(true))
	decompressor, _ = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxSize), zstd.WithDecoderConcurrency(0))
	castagnoli      = crc32.MakeTable(crc32.Castagnoli)
)

// Append appends the encoded form of data to dst.
func Append(dst, data []byte) []byte {
	if encoded, ok := appendCompressed(dst, data); ok {
		return encoded
	}
	return AppendUncompressed(dst, data)
}

// AppendFast is Append for a store whose space is a disk: an Image takes half as much again, and is
// encoded and decoded in a third of the time.
func AppendFast(dst, data []byte) []byte {
	if len(data) >= minCompress {
		sized := appendSize(dst, data)
		start := len(sized) + 5
		encoded := slices.Grow(sized, 5+s2.MaxEncodedLen(len(data)))[:start]
		encoded[start-5] = codecS2
		binary.BigEndian.PutUint32(encoded[start-4:], crc32.Checksum(data, castagnoli))
		if block := s2.Encode(encoded[start:cap(encoded)], data); len(block) < len(data) {
			return encoded[:start+len(block)]
		}
	}
	return AppendUncompressed(dst, data)
}

// AppendUncompressed is Append for data that is read more often than its space is worth: 1 KB is decoded
// in a tenth of the time.
func AppendUncompressed(dst, data []byte) []byte {
	dst = append(appendSize(dst, data), codecChecked)
	return append(binary.BigEndian.AppendUint32(dst, crc32.Checksum(data, castagnoli)), data...)
}

// AppendFormat1 is Append for a store that versions of format 1 read as well.
func AppendFormat1(dst, data []byte) []byte {
	if encoded, ok := appendCompressed(dst, data); ok {
		return encoded
	}
	return AppendPlain(dst, data)
}

// AppendPlain appends data in the encoding that has no checksum. It is for data that
// format 1 has stored so.
func AppendPlain(dst, data []byte) []byte {
	return append(append(appendSize(dst, data), codecPlain), data...)
}

// appendCompressed appends data compressed, if that saves space.
func appendCompressed(dst, data []byte) (_ []byte, ok bool) {
	if len(data) < minCompress {
		return dst, false
	}
	sized := appendSize(dst, data)
	encoded := compressor.EncodeAll(data, append(sized, codecZstd))
	return encoded, len(encoded)-len(sized) <= len(data)
}

func appendSize(dst, data []byte) []byte {
	return append(strconv.AppendInt(dst, int64(len(data)), 10), ':')
}

// Size returns the size of the data of an encoded section, 0 if that is malformed.
func Size(encoded []byte) int {
	size, _, _ := split(encoded)
	return size
}

// Equal reports whether two encoded sections have the same data, also if their codecs differ.
func Equal(a, b []byte) bool {
	sizeA, bodyA, okA := split(a)
	sizeB, bodyB, okB := split(b)
	if !okA || !okB || bodyA[0] == bodyB[0] || sizeA != sizeB {
		return bytes.Equal(a, b)
	}
	dataA, errA := Decode(a)
	dataB, errB := Decode(b)
	return errA == nil && errB == nil && bytes.Equal(dataA, dataB)
}

// Decode returns the data of an encoded section, in memory of its own.
func Decode(encoded []byte) ([]byte, error) { return AppendDecoded(nil, encoded) }

// AppendDecoded appends the data of an encoded section to dst.
func AppendDecoded(dst, encoded []byte) ([]byte, error) {
	size, body, ok := split(encoded)
	if !ok {
		return nil, ErrMalformed
	}
	start := len(dst)
	switch data := body[1:]; body[0] {
	case codecPlain:
		if len(data) == size {
			return append(grow(dst, size), data...), nil
		}
	case codecChecked:
		if len(data) == size+4 && binary.BigEndian.Uint32(data) == crc32.Checksum(data[4:], castagnoli) {
			return append(grow(dst, size), data[4:]...), nil
		}
	case codecZstd:
		decoded, err := decompressor.DecodeAll(data, grow(dst, min(size, 64*len(data))))
		if err == nil && len(decoded) == start+size {
			return decoded, nil
		}
	case codecS2:
		if len(data) < 4 {
			break
		}
		// The length is checked before there is memory for it.
		if length, err := s2.DecodedLen(data[4:]); err != nil || length != size {
			break
		}
		decoded := grow(dst, size)[:start+size]
		_, err := s2.Decode(decoded[start:], data[4:])
		if err == nil && binary.BigEndian.Uint32(data) == crc32.Checksum(decoded[start:], castagnoli) {
			return decoded, nil
		}
	}
	return nil, ErrMalformed
}

// grow returns dst with room for n more bytes. It is not nil.
func grow(dst []byte, n int) []byte {
	if dst == nil {
		return make([]byte, 0, n)
	}
	return slices.Grow(dst, n)
}

// split takes an encoded section apart. body starts with the codec.
func split(encoded []byte) (size int, body []byte, ok bool) {
	at := bytes.IndexByte(encoded, ':')
	if at < 1 || at > 10 || at+1 >= len(encoded) {
		return 0, nil, false
	}
	size, err := strconv.Atoi(string(encoded[:at]))
	if err != nil || size < 0 || size > maxSize {
		return 0, nil, false
	}
	return size, encoded[at+1:], true
}
