package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"tallyman/storage"
	"tallyman/storage/section"
)

var errCutShort = errors.New("bolt: a stored value is cut short")

// groupPrefix starts the names of parts that are groups of terms. Sections have letters
// only.
const groupPrefix = "#"

// part is one section of a record, encoded, a chunk of a section, or one group of its terms.
type part struct {
	name string
	// revision is that of the change that wrote the part; it may be older than the
	// record's.
	revision int64
	data     []byte
}

// ref names a part of some record of a key.
type ref struct {
	name     string
	revision int64
}

// record is a value of the data bucket. Its slices may point into the file, and are
// valid only inside the transaction then.
type record struct {
	revision int64
	parts    []part // sorted by name
	// damaged is set if the stored bytes are no record. Its revision is a guess then, by
	// which it can be replaced or deleted.
	damaged bool
}

// A record starts with recordMark and its revision. A record of format 1 starts with
// the revision, whose first byte is smaller, and the rest is the body.
const recordMark = 0xff

func (r *record) encode() []byte {
	b := append([]byte{recordMark}, encodeRevision(r.revision)...)
	b = binary.AppendUvarint(b, uint64(len(r.parts)))
	for _, p := range r.parts {
		b = appendBytes(b, []byte(p.name))
		b = binary.AppendUvarint(b, uint64(p.revision))
		b = appendBytes(b, p.data)
	}
	return b
}

// decodeRecord returns nil for a key that is absent.
func decodeRecord(b []byte) *record {
	switch {
	case b == nil:
		return nil
	case len(b) < 8 || b[0] == recordMark && len(b) < 9:
		return &record{damaged: true}
	case b[0] != recordMark:
		return bodyOf(decodeRevision(b), b[8:])
	}
	d := &decoder{rest: b[1:]}
	r := &record{revision: decodeRevision(d.take(8))}
	parts := d.uvarint()
	r.parts = make([]part, 0, min(parts, uint64(len(d.rest)))) // each has more than a byte
	for range parts {
		if d.err != nil {
			break
		}
		r.parts = append(r.parts, part{name: partName(d.bytes()), revision: int64(d.uvarint()), data: d.bytes()})
	}
	if d.err != nil {
		return &record{revision: r.revision, damaged: true}
	}
	return r
}

// partName returns the name of a part, without memory of its own for those of nearly all parts.
func partName(name []byte) string {
	switch string(name) {
	case storage.SectionBody:
		return storage.SectionBody
	case storage.SectionBrief:
		return storage.SectionBrief
	}
	return string(name)
}

// bodyOf returns the record that stands for a value of format 1.
func bodyOf(revision int64, body []byte) *record {
	return &record{revision: revision, parts: []part{{storage.SectionBody, revision, section.AppendPlain(nil, body)}}}
}

// at returns the revision of r, 0 for nil.
func (r *record) at() int64 {
	if r == nil {
		return 0
	}
	return r.revision
}

// find returns the place of a part, or where it belongs.
func (r *record) find(name string) (int, bool) {
	return slices.BinarySearchFunc(r.parts, name, func(p part, name string) int { return strings.Compare(p.name, name) })
}

// data returns the data of a part, nil if r does not have it.
func (r *record) data(name string) []byte {
	if at, found := r.find(name); found {
		return r.parts[at].data
	}
	return nil
}

// refs names the parts of r.
func (r *record) refs() []ref {
	refs := make([]ref, len(r.parts))
	for i, p := range r.parts {
		refs[i] = ref{p.name, p.revision}
	}
	return refs
}

// terms returns the terms of all groups.
func (r *record) terms() []storage.Term {
	if r == nil {
		return nil
	}
	var groups [][]storage.Term
	for _, p := range r.parts {
		if strings.HasPrefix(p.name, groupPrefix) {
			groups = append(groups, storage.DecodeTerms(p.data))
		}
	}
	if len(groups) == 1 {
		return groups[0]
	}
	return storage.MergeTerms(groups...)
}

// wants reports whether read asks for the part called name.
func wants(read *storage.Read, name string) bool {
	if strings.HasPrefix(name, groupPrefix) {
		return read.Terms
	}
	return read.Wants(section.Owner(name))
}

// entry returns the parts of r that read asks for, in memory, which may be nil; nil for nil.
func (r *record) entry(key string, read *storage.Read, memory *storage.Memory) *storage.Entry {
	if r == nil {
		return nil
	}
	e, body := &storage.Entry{Key: key, Revision: r.revision}, int64(0)
	if at, found := r.find(storage.SectionBody); found {
		body = r.parts[at].revision
	}
	if r.damaged {
		e.Err = &storage.CorruptError{Reason: errCutShort.Error()}
	}
	for _, p := range r.parts {
		if strings.HasPrefix(p.name, groupPrefix) || section.Owner(p.name) != p.name || !read.Wants(p.name) || read.Fresh && p.revision < body {
			continue
		}
		data, err := section.Join(memory.Take(section.Size(p.data)), p.name, p.data, r.data)
		if err != nil {
			e.Err = &storage.CorruptError{Reason: "section " + p.name + ": " + err.Error()}
			continue
		}
		e.Value = append(e.Value, storage.Section{Name: p.name, Data: data})
	}
	if read.Terms {
		e.Terms = r.terms()
	}
	return e
}

// put makes the record that a put of m makes of r, which may be nil, and returns the
// parts that it replaced.
func (r *record) put(m *storage.Mutation, revision int64, cutter *section.Cutter) (after *record, moved []part) {
	after = &record{revision: revision}
	if r != nil {
		after.parts = slices.Clone(r.parts)
	}
	set := func(name string, data []byte) {
		at, found := after.find(name)
		if found && data != nil && same(name, after.parts[at].data, data) {
			return
		}
		if found {
			moved = append(moved, after.parts[at])
			after.parts = slices.Delete(after.parts, at, at+1)
		}
		if data != nil {
			after.parts = slices.Insert(after.parts, at, part{name, revision, data})
		}
	}
	for _, s := range m.Value {
		stays := map[string]bool{}
		if s.Data != nil {
			for _, p := range cutter.Parts(s.Name, s.Data, encodingOf(s.Name)) {
				set(p.Name, p.Data)
				stays[p.Name] = true
			}
		}
		for _, p := range slices.Clone(after.parts) {
			if section.Owner(p.name) == s.Name && !stays[p.name] {
				set(p.name, nil)
			}
		}
	}
	for i := range m.Terms {
		name := groupPrefix + m.Terms[i].Group
		var before []storage.Term
		if at, found := after.find(name); found {
			before = storage.DecodeTerms(after.parts[at].data)
		}
		if terms := m.Terms[i].Apply(before); len(terms) > 0 {
			set(name, storage.EncodeTerms(terms))
		} else {
			set(name, nil)
		}
	}
	return after, moved
}

// same reports whether two parts have the same data. A section that was stored by another codec stays:
// those that are made of it would count as older.
func same(name string, a, b []byte) bool {
	if strings.HasPrefix(name, groupPrefix) {
		return bytes.Equal(a, b)
	}
	return section.Equal(a, b)
}

// encodingOf returns the encoding of a section. Lists read thousands of them, and briefs are small.
func encodingOf(name string) func(dst, data []byte) []byte {
	if name == storage.SectionBrief {
		return section.AppendUncompressed
	}
	return section.AppendFast
}

func appendBytes(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

// decoder reads fields one after the other, until one is cut short.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) take(n uint64) []byte {
	if uint64(len(d.rest)) < n {
		d.rest, d.err = nil, errCutShort
		return nil
	}
	field := d.rest[:n]
	d.rest = d.rest[n:]
	return field
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.rest, d.err = nil, errCutShort
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte { return d.take(d.uvarint()) }
