package storage

import (
	"slices"
	"strings"
)

// Names of sections.
const (
	// SectionBody is the object itself, in its storage encoding.
	SectionBody = "body"
	// SectionBrief is made of the body: the object's metadata and its row of a table, for answers that
	// have no more. It is another one whenever the body is, so that Read.Fresh tells whether it is of
	// the body.
	SectionBrief = "brief"
)

// Section is a named part of a value. Names are short lower-case words.
type Section struct {
	Name string
	Data []byte
}

// Value is the sections of an entry, sorted by name. A writer replaces the sections
// that it names and keeps the others, so that a binary keeps sections of which it does
// not know. A section that is made of the body may therefore be older than it.
type Value []Section

// Body returns a value with data as its body.
func Body(data []byte) Value { return Value{{SectionBody, data}} }

// Section returns the data of a section, nil if v does not have it.
func (v Value) Section(name string) []byte {
	for i := range v {
		if v[i].Name == name {
			return v[i].Data
		}
	}
	return nil
}

// Body returns the data of the section SectionBody.
func (v Value) Body() []byte { return v.Section(SectionBody) }

// Size returns the number of bytes of all sections.
func (v Value) Size() int {
	size := 0
	for i := range v {
		size += len(v[i].Data)
	}
	return size
}

// Sort sorts the sections by name.
func (v Value) Sort() {
	slices.SortFunc(v, func(a, b Section) int { return strings.Compare(a.Name, b.Name) })
}

// Wants reports whether the section called name is to be read.
func (r *Read) Wants(name string) bool { return r.Sections == nil || slices.Contains(r.Sections, name) }
