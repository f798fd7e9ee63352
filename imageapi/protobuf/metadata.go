package protobuf

import (
	"encoding/binary"
	"time"
)

// Numbers of the fields of an ObjectMeta (k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto). The first
// seven are there also if they are empty.
const (
	fieldName = 1 + iota
	fieldGenerateName
	fieldNamespace
	fieldSelfLink
	fieldUID
	fieldResourceVersion
	fieldGeneration
	fieldCreationTimestamp
	_ // deletionTimestamp
	_ // deletionGracePeriodSeconds
	fieldLabels
	fieldAnnotations
)

// plainMetadata appends metadata that has a name, a uid, a creationTimestamp, labels and annotations without
// escapes, as most have, and returns false for other metadata, with m as it was.
func (m *message) plainMetadata(field int, resourceVersion string) bool {
	o := scanner{rest: m.rest, separator: '{'}
	name, ok := o.plainText(`"name":`)
	uid, hasUID := o.plainText(`"uid":`)
	if !ok || !hasUID {
		return false
	}
	created, ok := o.time(`"creationTimestamp":`)
	if !ok {
		return false
	}
	begin := len(m.dst)
	m.dst = append(m.dst, byte(field<<3|2), 0, 0, 0)
	start := len(m.dst)
	m.begin(fieldName, len(name))
	m.dst = append(m.dst, name...)
	for _, empty := range []int{fieldGenerateName, fieldNamespace, fieldSelfLink} {
		m.begin(empty, 0)
	}
	m.begin(fieldUID, len(uid))
	m.dst = append(m.dst, uid...)
	m.begin(fieldResourceVersion, len(resourceVersion))
	m.dst = append(append(m.dst, resourceVersion...), fieldGeneration<<3, 0)
	const secondsField, nanosField = 1, 2
	m.begin(fieldCreationTimestamp, 3+uvarintSize(int(created)))
	m.dst = append(binary.AppendUvarint(append(m.dst, secondsField<<3), uint64(created)), nanosField<<3, 0)
	size := 0
	if m.plainMap(&o, `"labels":`, fieldLabels) && m.plainMap(&o, `"annotations":`, fieldAnnotations) && len(o.rest) > 0 && o.rest[0] == '}' {
		size = len(m.dst) - start
	}
	if size == 0 || uvarintSize(size) > reserved {
		m.dst = m.dst[:begin]
		return false
	}
	m.close(start)
	m.rest = o.rest[1:]
	return true
}

// close gives the field of bytes that begins at start its size, for which there is room before it.
func (m *message) close(start int) {
	size := len(m.dst) - start
	header := start - reserved + binary.PutUvarint(m.dst[start-reserved:start], uint64(size))
	if header < start {
		copy(m.dst[header:], m.dst[start:])
	}
	m.dst = m.dst[:header+size]
}

// plainMap appends a field for each member of an object, if there is one, whose keys and values are without
// escapes, and in the order in which they are encoded.
func (m *message) plainMap(o *scanner, name string, field int) bool {
	if !o.skip(name) {
		return true
	}
	const keyField, valueField = 1, 2
	members, last := scanner{rest: o.rest, separator: '{'}, ""
	for len(members.rest) > 0 && members.rest[0] != '}' {
		if members.rest[0] != members.separator {
			return false
		}
		members.rest, members.separator = members.rest[1:], ':'
		key, ok := members.plain()
		if !ok || last != "" && last >= string(key) {
			return false
		}
		last = string(key)
		value, ok := members.plainText("")
		if !ok {
			return false
		}
		members.separator = ','
		m.begin(field, 2+uvarintSize(len(key))+len(key)+uvarintSize(len(value))+len(value))
		m.begin(keyField, len(key))
		m.dst = append(m.dst, key...)
		m.begin(valueField, len(value))
		m.dst = append(m.dst, value...)
	}
	if members.separator == '{' || len(members.rest) == 0 { // an empty one, or none
		return false
	}
	o.rest = members.rest[1:]
	return true
}

// time skips a field with a time in seconds from 1970 on, and returns these.
func (s *scanner) time(name string) (seconds int64, ok bool) {
	text, ok := s.plainText(name)
	if !ok || len(text) != len(time.RFC3339)-len("07:00") {
		return 0, false
	}
	at, err := time.Parse(time.RFC3339, string(text))
	return at.Unix(), err == nil && at.Unix() > 0
}
