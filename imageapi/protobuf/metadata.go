package protobuf

import (
	"bytes"
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
	_ // ownerReferences
	_ // finalizers
	_ // clusterName
	_ // initializers
	fieldManagedFields
)

// plainMetadata appends metadata that has a name, a uid, a creationTimestamp, labels and annotations without
// escapes, and managedFields, as most have, and returns false for other metadata, with m as it was.
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
	start := m.open(field)
	m.field(fieldName, name)
	for _, empty := range []int{fieldGenerateName, fieldNamespace, fieldSelfLink} {
		m.begin(empty, 0)
	}
	m.field(fieldUID, uid)
	m.begin(fieldResourceVersion, len(resourceVersion))
	m.dst = append(append(m.dst, resourceVersion...), fieldGeneration<<3, 0)
	m.time(fieldCreationTimestamp, created)
	if m.plainMap(&o, `"labels":`, fieldLabels) && m.plainMap(&o, `"annotations":`, fieldAnnotations) &&
		m.plainManagedFields(&o, fieldManagedFields) && len(o.rest) > 0 && o.rest[0] == '}' && m.close(start) {
		m.rest = o.rest[1:]
		return true
	}
	m.dst = m.dst[:begin]
	return false
}

// plainMap appends a field for each member of an object, if there is one, whose keys and values are without
// escapes, and in the order in which they are encoded.
func (m *message) plainMap(o *scanner, name string, field int) bool {
	if !o.skip(name) {
		return true
	}
	const keyField, valueField = 1, 2
	members := scanner{rest: o.rest, separator: '{'}
	var last []byte // nil before the first
	for len(members.rest) > 0 && members.rest[0] != '}' {
		if members.rest[0] != members.separator {
			return false
		}
		members.rest, members.separator = members.rest[1:], ':'
		key, ok := members.plain()
		if !ok || last != nil && bytes.Compare(last, key) >= 0 {
			return false
		}
		last = key
		value, ok := members.plainText("")
		if !ok {
			return false
		}
		members.separator = ','
		m.begin(field, 2+uvarintSize(len(key))+len(key)+uvarintSize(len(value))+len(value))
		m.field(keyField, key)
		m.field(valueField, value)
	}
	if members.separator == '{' || len(members.rest) == 0 { // an empty one, or none
		return false
	}
	o.rest = members.rest[1:]
	return true
}

// plainManagedFields appends a field for each entry of managedFields, if there are any, that are as the API
// server writes them.
func (m *message) plainManagedFields(o *scanner, field int) bool {
	return !o.skip(`"managedFields":`) || o.list(func() bool { return m.plainManager(o, field) })
}

// plainManager appends a field for an entry of managedFields (ManagedFieldsEntry in the generated.proto above).
func (m *message) plainManager(o *scanner, field int) bool {
	const (
		managerField = 1 + iota
		operationField
		apiVersionField
		timeField
		_
		fieldsTypeField
		fieldsField
		subresourceField
	)
	entry := scanner{rest: o.rest, separator: '{'}
	manager, isManager := entry.plainText(`"manager":`)
	operation, isOperation := entry.plainText(`"operation":`)
	version, isVersion := entry.plainText(`"apiVersion":`)
	at, isTime := entry.time(`"time":`)
	fieldsType, isFieldsType := entry.plainText(`"fieldsType":`)
	if !isManager || !isOperation || !isVersion || !isTime || !isFieldsType || !entry.skip(`"fieldsV1":`) {
		return false
	}
	fields := entry.value()
	subresource, _ := entry.plainText(`"subresource":`)
	if len(fields) == 0 || fields[0] != '{' || len(entry.rest) == 0 || entry.rest[0] != '}' {
		return false
	}
	o.rest = entry.rest[1:]
	start := m.open(field)
	m.field(managerField, manager)
	m.field(operationField, operation)
	m.field(apiVersionField, version)
	m.time(timeField, at)
	m.field(fieldsTypeField, fieldsType)
	m.json(fieldsField, fields)
	m.field(subresourceField, subresource)
	return m.close(start)
}

// time appends a field with a time (Timestamp in the generated.proto above).
func (m *message) time(field int, seconds int64) {
	const secondsField, nanosField = 1, 2
	m.begin(field, 3+uvarintSize(int(seconds)))
	m.dst = append(binary.AppendUvarint(append(m.dst, secondsField<<3), uint64(seconds)), nanosField<<3, 0)
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
