// Package encoding makes answers of stored JSON: objects with their resourceVersion, and lists
// in the formats that Kubernetes serves, item by item.
package encoding

import (
	"bytes"
	"strconv"
)

// Stored JSON has no resourceVersion: the revision of the commit is not known
// when the object is encoded, and belongs to the entry, not to the bytes. An
// answer is the stored bytes with `"resourceVersion":"…"` spliced in where the
// ordinary encoder writes it: after the metadata fields that come before it in
// ObjectMeta.

// beforeResourceVersion are the fields that ObjectMeta encodes ahead of
// resourceVersion (k8s.io/apimachinery/pkg/apis/meta/v1/types.go).
var beforeResourceVersion = [][]byte{
	[]byte(`"name":`), []byte(`"generateName":`), []byte(`"namespace":`), []byte(`"selfLink":`), []byte(`"uid":`),
}

// Splicer is one stored object with the place of its resourceVersion.
type Splicer struct {
	data     []byte // without the encoder's final newline
	metadata int    // where the metadata field starts
	offset   int    // where resourceVersion belongs
}

// NewSplicer finds the place. It returns false for bytes that do not start as
// the JSON of an API object does; those take the ordinary road.
func NewSplicer(data []byte) (Splicer, bool) {
	data = bytes.TrimSuffix(data, []byte("\n"))
	metadata, ok := metadataField(data)
	if !ok {
		return Splicer{}, false
	}
	s := Splicer{data: data, metadata: metadata, offset: metadata + len(metadataKey)}
	for {
		next, ok := skipField(data, s.offset)
		if !ok {
			return s, s.fits()
		}
		s.offset = next
		if s.offset >= len(data) || data[s.offset] != ',' {
			return s, s.fits()
		}
		s.offset++
	}
}

// fits reports whether the next field of the metadata, or their end, is at the offset: white space
// is not, from which nobody can tell which of the two comes.
func (s *Splicer) fits() bool {
	return s.offset < len(s.data) && (s.data[s.offset] == '"' || s.data[s.offset] == '}')
}

const metadataKey = `"metadata":{`

// metadataField returns the offset of the metadata field in an object that
// starts with kind, apiVersion and metadata.
func metadataField(data []byte) (int, bool) {
	at := 0
	for _, step := range []string{`{"kind":`, `,"apiVersion":`} {
		if !bytes.HasPrefix(data[at:], []byte(step)) {
			return 0, false
		}
		end, ok := skipString(data, at+len(step))
		if !ok {
			return 0, false
		}
		at = end
	}
	return at + 1, bytes.HasPrefix(data[at:], []byte(","+metadataKey))
}

// skipField returns the offset behind the field at offset at, if that is one of
// beforeResourceVersion.
func skipField(data []byte, at int) (int, bool) {
	for _, field := range beforeResourceVersion {
		if bytes.HasPrefix(data[at:], field) {
			return skipString(data, at+len(field))
		}
	}
	return 0, false
}

// skipString returns the offset behind the JSON string that starts at at.
func skipString(data []byte, at int) (int, bool) {
	if at >= len(data) || data[at] != '"' {
		return 0, false
	}
	for i := at + 1; i < len(data); i++ {
		switch data[i] {
		case '\\':
			i++
		case '"':
			return i + 1, true
		}
	}
	return 0, false
}

// Size is an upper bound of the length that AppendTo appends.
func (s Splicer) Size() int { return len(s.data) + len(`,"resourceVersion":"",`) + 20 }

// AppendTo appends the object with resourceVersion revision to dst.
func (s Splicer) AppendTo(dst []byte, revision int64) []byte {
	return s.appendFrom(dst, 0, revision)
}

// AppendItemTo is AppendTo for an item of a list, which has no kind and
// apiVersion of its own.
func (s Splicer) AppendItemTo(dst []byte, revision int64) []byte {
	return s.appendFrom(append(dst, '{'), s.metadata, revision)
}

// AppendMetadataTo appends the metadata alone.
func (s Splicer) AppendMetadataTo(dst []byte, revision int64) []byte {
	end := skipObject(s.data, s.offset)
	metadata := Splicer{data: s.data[:end], offset: s.offset}
	return metadata.appendFrom(dst, s.metadata+len(metadataKey)-1, revision)
}

// skipObject returns the offset behind the JSON object that at is in, outside of strings.
func skipObject(data []byte, at int) int {
	for depth := 1; at < len(data); at++ {
		switch data[at] {
		case '"':
			end, ok := skipString(data, at)
			if !ok {
				return len(data)
			}
			at = end - 1
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return at + 1
			}
		}
	}
	return len(data)
}

func (s Splicer) appendFrom(dst []byte, start int, revision int64) []byte {
	dst = append(dst, s.data[start:s.offset]...)
	if last := s.data[s.offset-1]; last != '{' && last != ',' {
		dst = append(dst, ',')
	}
	dst = append(dst, `"resourceVersion":"`...)
	dst = strconv.AppendInt(dst, revision, 10)
	dst = append(dst, '"')
	if s.data[s.offset] != '}' {
		dst = append(dst, ',')
	}
	return append(dst, s.data[s.offset:]...)
}
