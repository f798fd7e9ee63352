// Package der bounds ASN.1 of untrusted origin before a parser sees it: parsers of BER take time
// that grows with the square of nesting, or a stack frame for each level.
package der

import (
	"errors"
	"fmt"
)

// Bounds of a certificate, a chain of them, or a timestamp.
const (
	// MaxBytes is the largest size. Timestamps of public authorities have 2 to 7 KiB.
	MaxBytes = 16 << 10
	// MaxDepth is the number of constructed values that may be one in another.
	MaxDepth = 64
)

// Check returns an error if data is larger or nested deeper than the bounds, or if it cannot be
// the beginning of BER: the tags and lengths of ITU-T X.690, section 8.1. It does not look at
// primitive values, and takes time proportional to the size.
func Check(data []byte) error {
	if len(data) > MaxBytes {
		return fmt.Errorf("it has %d bytes, more than %d", len(data), MaxBytes)
	}
	var ends []int // of the constructed values around the position; -1 for those of indefinite length
	for at := 0; at < len(data); {
		for len(ends) > 0 && ends[len(ends)-1] == at {
			ends = ends[:len(ends)-1]
		}
		header, err := readHeader(data[at:])
		if err != nil {
			return err
		}
		at += header.size
		switch {
		case header.endOfContents && len(ends) > 0 && ends[len(ends)-1] < 0:
			ends = ends[:len(ends)-1]
		case header.constructed:
			if len(ends) == MaxDepth {
				return fmt.Errorf("it is nested deeper than %d", MaxDepth)
			}
			end := -1
			if header.length >= 0 {
				end = at + header.length
			}
			ends = append(ends, end)
		default:
			at += header.length
		}
		if at > len(data) {
			return errCut
		}
	}
	return nil
}

var errCut = errors.New("it is cut off")

// header is the tag and length of a value.
type header struct {
	size, length  int // length is -1 if it is indefinite
	constructed   bool
	endOfContents bool
}

func readHeader(data []byte) (header, error) {
	h := header{constructed: data[0]&0x20 != 0, size: 1}
	if data[0]&0x1f == 0x1f { // the tag's number follows
		for {
			if h.size == len(data) {
				return h, errCut
			}
			h.size++
			if data[h.size-1]&0x80 == 0 {
				break
			}
		}
	}
	if h.size == len(data) {
		return h, errCut
	}
	first := data[h.size]
	h.size++
	switch {
	case first < 0x80:
		h.length = int(first)
	case first == 0x80 && h.constructed:
		h.length = -1
	case first == 0x80:
		return h, errors.New("a primitive value has no length")
	default:
		for range first & 0x7f {
			if h.size == len(data) {
				return h, errCut
			}
			h.length = h.length<<8 | int(data[h.size])
			h.size++
			if h.length > MaxBytes {
				return h, errCut
			}
		}
	}
	h.endOfContents = data[0] == 0 && h.length == 0
	return h, nil
}
