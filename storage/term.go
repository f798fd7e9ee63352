package storage

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// TermSize is the size of a Term in bytes.
const TermSize = 16

// Term is an index term as it is stored: the first bytes of its SHA-256.
type Term [TermSize]byte

// HashTerm returns the stored form of a term.
func HashTerm(term string) Term {
	sum := sha256.Sum256([]byte(term))
	return Term(sum[:TermSize])
}

// HashTerms returns the stored form of terms, sorted and each once.
func HashTerms(terms []string) []Term {
	hashed := make([]Term, len(terms))
	for i, term := range terms {
		hashed[i] = HashTerm(term)
	}
	return sortTerms(hashed)
}

func sortTerms(terms []Term) []Term {
	slices.SortFunc(terms, compareTerms)
	return slices.Compact(terms)
}

func compareTerms(a, b Term) int { return bytes.Compare(a[:], b[:]) }

// EncodeTerms returns terms one after the other, as backends store them.
func EncodeTerms(terms []Term) []byte {
	b := make([]byte, 0, len(terms)*TermSize)
	for i := range terms {
		b = append(b, terms[i][:]...)
	}
	return b
}

// DecodeTerms is the inverse of EncodeTerms. It ignores a term that is cut short.
func DecodeTerms(b []byte) []Term {
	terms := make([]Term, 0, len(b)/TermSize)
	for ; len(b) >= TermSize; b = b[TermSize:] {
		terms = append(terms, Term(b[:TermSize]))
	}
	return terms
}

// HasTerm reports whether terms, which are sorted, have term.
func HasTerm(terms []Term, term Term) bool {
	_, found := slices.BinarySearchFunc(terms, term, compareTerms)
	return found
}

// MergeTerms returns the terms of several groups, sorted and each once.
func MergeTerms(groups ...[]Term) []Term { return sortTerms(slices.Concat(groups...)) }

// DiffTerms returns the terms of after that are not in before, and those of before
// that are not in after. Both are sorted.
func DiffTerms(before, after []Term) (added, removed []Term) {
	for _, t := range after {
		if !HasTerm(before, t) {
			added = append(added, t)
		}
	}
	for _, t := range before {
		if !HasTerm(after, t) {
			removed = append(removed, t)
		}
	}
	return added, removed
}

// TermOperation is the effect of a TermChange on its group.
type TermOperation int

// The operations.
const (
	// ReplaceTerms makes the group hold just the terms given.
	ReplaceTerms TermOperation = iota
	// AddTerms adds the terms to the group.
	AddTerms
	// RemoveTerms removes the terms from the group.
	RemoveTerms
)

// TermChange changes one group of an entry's terms. Groups that a mutation does not name stay
// as they are, so that independent writers do not disturb each other. An entry carries a term
// if any of its groups holds it.
type TermChange struct {
	// Group is a short lower-case word.
	Group     string
	Operation TermOperation
	Terms     []string
}

// Apply returns the terms that the group holds after the change, sorted. before is
// not changed.
func (c *TermChange) Apply(before []Term) []Term {
	terms := HashTerms(c.Terms)
	switch c.Operation {
	case AddTerms:
		return MergeTerms(before, terms)
	case RemoveTerms:
		return slices.DeleteFunc(slices.Clone(before), func(t Term) bool { return HasTerm(terms, t) })
	}
	return terms
}

// IndexState is how far an index is filled.
type IndexState struct {
	// Version is the writer's own: an index of another version is filled anew.
	Version string `json:"version"`
	// Position is the last key whose terms are there, "" at the beginning.
	Position string `json:"position,omitempty"`
	// Complete is set when all entries have their terms.
	Complete bool `json:"complete,omitempty"`
	// Since is the revision from which on scans by term are exact; 0 until Complete.
	Since int64 `json:"since,omitempty"`
	// Filled is the number of entries that were looked at.
	Filled int64 `json:"filled,omitempty"`
}

// FillRequest sets the terms of some entries.
type FillRequest struct {
	// Name is that of the index. Scans by term need all indexes of a store that were
	// begun to be complete.
	Name string
	// State is the state that the caller has read, and Next the one to store. Since is
	// set by the backend when Complete is.
	State, Next IndexState
	// Entries says which terms a group of which entry is to hold. One that has another
	// revision by now is passed over: its writer has given it its terms.
	Entries []IndexedEntry
}

// IndexedEntry is an entry with the terms of one group.
type IndexedEntry struct {
	Key      string
	Revision int64
	Group    string
	Terms    []string
	// Section, if it has data, is made of the body. It is added to an entry that has none of its name, and
	// takes the place of one that is made of the same body. One that is older than the body stays: an
	// earlier revision may have it.
	Section Section
}
