package encoding

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
)

// frame returns the bytes before and after the items of a list. empty is the encoded list
// without items. It returns false if empty has no place for items.
func (f Format) frame(empty []byte, count, size int) (head, tail []byte, ok bool) {
	switch f {
	case JSON:
		head, tail, ok = cutList(empty, "[", "]}\n")
	case IndentedJSON:
		head, tail, ok = cutList(empty, "[", "]\n}")
	case YAML:
		head, tail, ok = bytes.Cut(empty, []byte(": []\n"))
		head, tail = append(slices.Clip(head), ':'), append([]byte{'\n'}, tail...)
	case CBOR:
		head, tail, ok = bytes.Cut(empty, []byte(cborItems+"\x80"))
		head = appendCBORLength(append(slices.Clip(head), cborItems...), count)
	case Protobuf:
		head, tail, ok = protobufFrame(empty, size)
	}
	return head, tail, ok
}

// cutList cuts an empty list between the brackets of its items.
func cutList(empty []byte, open, end string) (head, tail []byte, ok bool) {
	at := len(empty) - len(end)
	return empty[:max(at, 0)], empty[max(at, 0):], bytes.HasSuffix(empty, []byte(open+end))
}

// cborItems is the key of the items in CBOR: a byte string of five bytes.
const cborItems = "\x45items"

// appendCBORLength appends the head of an array of n items (RFC 8949, section 3).
func appendCBORLength(dst []byte, n int) []byte {
	const array = 4 << 5
	switch {
	case n < 24:
		return append(dst, array|byte(n))
	case n < 1<<8:
		return append(dst, array|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, array|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, array|26), uint32(n))
}

// protobufPrefix starts every message in Kubernetes' protobuf encoding.
// Reference: https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
const protobufPrefix = "k8s\x00"

// protobufFrame returns the bytes before and after items of size bytes.
func protobufFrame(empty []byte, size int) (head, tail []byte, ok bool) {
	message, ok := bytes.CutPrefix(empty, []byte(protobufPrefix))
	var unknown runtime.Unknown
	if !ok || unknown.Unmarshal(message) != nil {
		return nil, nil, false
	}
	metadata := unknown.Raw
	frame, split := bytes.NewBufferString(protobufPrefix), 0
	_, err := unknown.MarshalToWriter(frame, len(metadata)+size, func(io.Writer) (int, error) {
		frame.Write(metadata)
		split = frame.Len()
		return len(metadata) + size, nil
	})
	return frame.Bytes()[:split], frame.Bytes()[split:], err == nil
}

// itemTag is the tag of field 2, length-delimited: the items of every Kubernetes list.
const itemTag = 2<<3 | 2
