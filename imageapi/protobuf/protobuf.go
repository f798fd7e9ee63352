// Package protobuf makes the protobuf of an Image from its stored JSON.
//
// To decode an Image and encode it again takes four times as long: most of one is text, the manifest
// and the config, which here is copied once.
package protobuf

import (
	"encoding/binary"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Version is changed when Append makes another size of the same JSON, as with new fields of the types.
const Version = "1"

// Numbers of the fields of an Image, which github.com/openshift/api/image/v1 has in its tags.
const (
	fieldMetadata = 1 + iota
	fieldReference
	fieldImageMetadata
	fieldMetadataVersion
	fieldManifest
	fieldLayers
	fieldSignatures
	fieldRawSignatures
	fieldManifestMediaType
	fieldConfig
	fieldManifests
)

// fieldRaw is that of the JSON in a runtime.RawExtension, and in FieldsV1.
const fieldRaw = 1

// Append appends the message of an Image, as its Marshal method makes it, with a revision as its
// resourceVersion. data is its JSON as it is stored: valid, without a resourceVersion, its fields in the
// order of the type. It returns false for JSON that it does not know all of, and then dst as it was.
func Append(dst, data []byte, revision int64) (_ []byte, ok bool) {
	return appendImage(dst, data, strconv.FormatInt(revision, 10))
}

// Size is what SizeOf says of an Image.
type Size struct {
	metadata, total int
}

// SizeOf returns the size of the message that Append makes of JSON. It returns false where Append does.
func SizeOf(data []byte) (s Size, ok bool) {
	message, ok := appendImage(nil, data, "")
	if !ok {
		return Size{}, false
	}
	metadata, _ := binary.Uvarint(message[1:])
	return Size{int(metadata), len(message)}, true
}

// At returns the size of the message with a revision.
func (s Size) At(revision int64) int {
	digits := len(strconv.AppendInt(make([]byte, 0, 20), revision, 10))
	return s.total + digits + uvarintSize(s.metadata+digits) - uvarintSize(s.metadata)
}

// AppendText appends a Size for ParseSize.
func (s Size) AppendText(dst []byte) []byte {
	return strconv.AppendInt(append(strconv.AppendInt(dst, int64(s.metadata), 10), '/'), int64(s.total), 10)
}

// ParseSize returns the Size that AppendText has written. It returns false for other text.
func ParseSize(text []byte) (s Size, ok bool) {
	for i, c := range text {
		switch {
		case c == '/' && !ok:
			s.metadata, s.total, ok = s.total, 0, true
		case c < '0' || c > '9' || i > 20:
			return Size{}, false
		default:
			s.total = 10*s.total + int(c-'0')
		}
	}
	return s, ok && s.total > 0
}

func appendImage(dst, data []byte, revision string) (_ []byte, ok bool) {
	if !utf8.Valid(data) {
		return dst, false
	}
	m := &message{dst: dst, scanner: scanner{rest: data, separator: '{'}}
	for _, name := range []string{`"kind":`, `"apiVersion":`} {
		if m.skip(name) && m.value() == nil {
			return dst, false
		}
	}
	// In the order of the type, which is that of the JSON and of the message.
	m.metadata(`"metadata":`, fieldMetadata, revision)
	m.textField(`"dockerImageReference":`, fieldReference)
	m.raw(`"dockerImageMetadata":`, fieldImageMetadata)
	m.textField(`"dockerImageMetadataVersion":`, fieldMetadataVersion)
	m.textField(`"dockerImageManifest":`, fieldManifest)
	m.layers(`"dockerImageLayers":`, fieldLayers)
	appendItems[imagev1.ImageSignature](m, `"signatures":`, fieldSignatures)
	m.texts(`"dockerImageSignatures":`, fieldRawSignatures)
	m.textField(`"dockerImageManifestMediaType":`, fieldManifestMediaType)
	m.textField(`"dockerImageConfig":`, fieldConfig)
	appendItems[imagev1.ImageManifest](m, `"dockerImageManifests":`, fieldManifests)
	if m.failed || !m.atEnd() {
		return dst, false
	}
	return m.dst, true
}

// message is one that fields are appended to, as they come in JSON.
type message struct {
	scanner
	dst    []byte
	failed bool
}

// begin appends the tag of a field of bytes, and their number.
func (m *message) begin(field, size int) {
	m.dst = binary.AppendUvarint(binary.AppendUvarint(m.dst, uint64(field<<3|2)), uint64(size))
}

// field appends a field of bytes.
func (m *message) field(field int, value []byte) {
	m.begin(field, len(value))
	m.dst = append(m.dst, value...)
}

// reserved is the room for the size of a field that is not known before its bytes. One of 2 MiB or more has none.
const reserved = 3

// open begins a field of bytes whose number close sets, and returns the place of the first.
func (m *message) open(field int) (start int) {
	m.dst = append(binary.AppendUvarint(m.dst, uint64(field<<3|2)), 0, 0, 0)
	return len(m.dst)
}

// close ends the field of bytes that begins at start. It returns false if it is too long.
func (m *message) close(start int) bool {
	size := len(m.dst) - start
	if uvarintSize(size) > reserved {
		return false
	}
	header := start - reserved + binary.PutUvarint(m.dst[start-reserved:start], uint64(size))
	if header < start {
		copy(m.dst[header:], m.dst[start:])
	}
	m.dst = m.dst[:header+size]
	return true
}

// textField appends a field of text, which is there also if it is empty.
func (m *message) textField(name string, field int) {
	if !m.skip(name) {
		m.begin(field, 0)
		return
	}
	start := m.open(field)
	var ok bool
	m.dst, ok = m.text(m.dst)
	m.failed = m.failed || !ok || !m.close(start)
}

// raw appends a field of JSON.
func (m *message) raw(name string, field int) {
	var value []byte
	if m.skip(name) {
		value = m.value()
		m.failed = m.failed || value == nil
	}
	if value == nil || string(value) == "null" {
		m.begin(field, 0)
		return
	}
	m.json(field, value)
}

// json appends a field with JSON, as that of a runtime.RawExtension and of FieldsV1.
func (m *message) json(field int, value []byte) {
	m.begin(field, 1+uvarintSize(len(value))+len(value))
	m.field(fieldRaw, value)
}

// metadata appends the metadata, with a resourceVersion.
func (m *message) metadata(name string, field int, resourceVersion string) {
	metadata := metav1.ObjectMeta{}
	if !m.skip(name) {
		m.failed = true
		return
	}
	if m.plainMetadata(field, resourceVersion) {
		return
	}
	if json.Unmarshal(m.value(), &metadata) != nil || metadata.ResourceVersion != "" {
		m.failed = true
		return
	}
	metadata.ResourceVersion = resourceVersion
	m.append(field, &metadata)
}

// texts appends a field of bytes for each item of an array.
func (m *message) texts(name string, field int) {
	if !m.skip(name) {
		return
	}
	var items [][]byte
	m.failed = m.failed || json.Unmarshal(m.value(), &items) != nil
	for _, item := range items {
		m.field(field, item)
	}
}

// layers appends a field for each layer. A list of them that is not as it is stored is decoded.
func (m *message) layers(name string, field int) {
	before := *m
	if !m.skip(name) {
		return
	}
	if m.list(func() bool { return m.layer(field) }) {
		return
	}
	*m = before
	appendItems[imagev1.ImageLayer](m, name, field)
}

// layer appends a field for a layer, and returns false for one that is not as it is stored.
func (m *message) layer(field int) bool {
	const nameField, sizeField, mediaTypeField = 1, 2, 3
	o := scanner{rest: m.rest, separator: '{'}
	digest, ok := o.plainText(`"name":`)
	size, isSize := o.number(`"size":`)
	mediaType, isText := o.plainText(`"mediaType":`)
	if !ok || !isSize || !isText || len(o.rest) == 0 || o.rest[0] != '}' {
		return false
	}
	m.rest = o.rest[1:]
	m.begin(field, 3+uvarintSize(len(digest))+len(digest)+uvarintSize(size)+uvarintSize(len(mediaType))+len(mediaType))
	m.field(nameField, digest)
	m.dst = binary.AppendUvarint(append(m.dst, sizeField<<3), uint64(size))
	m.field(mediaTypeField, mediaType)
	return true
}

// sized is a message that encodes itself.
type sized interface {
	Size() int
	MarshalToSizedBuffer([]byte) (int, error)
}

// append appends a field with a message.
func (m *message) append(field int, value sized) {
	size := value.Size()
	m.begin(field, size)
	start := len(m.dst)
	m.dst = append(m.dst, make([]byte, size)...)
	if n, err := value.MarshalToSizedBuffer(m.dst[start:]); err != nil || n != size {
		m.failed = true
	}
}

// appendItems appends a field for each item of an array.
func appendItems[T any, P interface {
	*T
	sized
}](m *message, name string, field int) {
	if !m.skip(name) {
		return
	}
	var items []T
	m.failed = m.failed || json.Unmarshal(m.value(), &items) != nil
	for i := range items {
		m.append(field, P(&items[i]))
	}
}

func uvarintSize(n int) int {
	size := 1
	for ; n >= 1<<7; n >>= 7 {
		size++
	}
	return size
}
