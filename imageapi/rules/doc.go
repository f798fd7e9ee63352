// Package rules has the rules about one Image: its annotations and metadata, the fields that
// follow from its manifest, validation, selectors, its row in a table, and the entries of its
// signatures.
//
// # Guarantees
//
// The functions depend on their arguments alone (a table also on the time), and do no I/O.
package rules
