package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Bounds of a commit.
const (
	// MaxMutations is how many mutations a commit has at most.
	MaxMutations = 160
	// MaxCommitBytes is how many bytes the keys, sections and terms of a commit have
	// at most.
	MaxCommitBytes = 8 << 20
)

// AnyRevision is a Mutation.Expect that every key meets, present or absent.
const AnyRevision = -1

// Operation is the kind of a Mutation.
type Operation int

// The operations.
const (
	// Put writes sections and terms under a key.
	Put Operation = iota
	// Delete removes a key. With AnyRevision, a key that is absent is no conflict and
	// makes no change.
	Delete
	// Check changes nothing: the key has the expected revision.
	Check
	// CheckEmpty changes nothing: no entry is in [From, To), or none there carries Term
	// if that is set.
	CheckEmpty
)

// Mutation is one part of a commit. All conditions of a commit are checked against the
// state before it. A key may be put or deleted once in it.
type Mutation struct {
	Operation Operation
	Key       string
	// Expect is the revision that the key must have: 0 if it must not exist,
	// AnyRevision if it does not matter.
	Expect int64
	// Value has the sections that Put writes, at least one. A section whose Data is nil
	// is removed. Sections that are not named stay.
	Value Value
	// Terms changes groups of terms. Groups that are not named stay.
	Terms []TermChange
	// From, To and Term are the range that CheckEmpty wants empty.
	From, To, Term string
}

// ValidateMutations returns an error if mutations are not a valid commit.
func ValidateMutations(mutations []Mutation) error {
	if len(mutations) == 0 || len(mutations) > MaxMutations {
		return fmt.Errorf("a commit has %d mutations: want 1 to %d", len(mutations), MaxMutations)
	}
	size, changed := 0, map[string]bool{}
	for i := range mutations {
		m := &mutations[i]
		if err := m.validate(); err != nil {
			return fmt.Errorf("mutation %d: %w", i, err)
		}
		if m.Changes() {
			if changed[m.Key] {
				return fmt.Errorf("mutation %d: %q is changed twice", i, m.Key)
			}
			changed[m.Key] = true
		}
		size += m.size()
	}
	if size > MaxCommitBytes {
		return fmt.Errorf("a commit has %d bytes: want at most %d", size, MaxCommitBytes)
	}
	return nil
}

// Changes reports whether the mutation is a put or a deletion.
func (m *Mutation) Changes() bool { return m.Operation == Put || m.Operation == Delete }

type removalKey struct{}

// WithRemoval returns a context that marks commits as parts of a removal. A full store
// accepts them.
func WithRemoval(ctx context.Context) context.Context {
	return context.WithValue(ctx, removalKey{}, true)
}

// Removes reports whether a commit has no Put or is part of a removal.
func Removes(ctx context.Context, mutations []Mutation) bool {
	return ctx.Value(removalKey{}) != nil || !slices.ContainsFunc(mutations, func(m Mutation) bool { return m.Operation == Put })
}

type conditionsKey struct{}

// WithConditions returns a context that adds mutations, of the kinds that change nothing, to the
// commits of objects. conditions is called for each commit. A commit fails with ErrConditionFailed
// if one of them does not hold.
func WithConditions(ctx context.Context, conditions func() []Mutation) context.Context {
	return context.WithValue(ctx, conditionsKey{}, conditions)
}

// Conditions returns the mutations that WithConditions adds to a commit with ctx.
func Conditions(ctx context.Context) []Mutation {
	if conditions, ok := ctx.Value(conditionsKey{}).(func() []Mutation); ok {
		return conditions()
	}
	return nil
}

func (m *Mutation) validate() error {
	switch {
	case m.Operation == CheckEmpty:
		if m.From >= m.To {
			return fmt.Errorf("the range [%q, %q) is empty", m.From, m.To)
		}
		return nil
	case m.Key == "" || strings.Contains(m.Key, "\x00"):
		return fmt.Errorf("key %q: want one that is not empty and has no NUL", m.Key)
	case m.Expect < AnyRevision || m.Operation == Check && m.Expect == AnyRevision:
		return fmt.Errorf("expected revision %d of %q is none", m.Expect, m.Key)
	case m.Operation != Put && (len(m.Value) > 0 || len(m.Terms) > 0):
		return errors.New("only a put has sections and terms")
	case m.Operation != Put:
		return nil
	case len(m.Value) == 0:
		return fmt.Errorf("a put of %q has no section", m.Key)
	}
	for i := range m.Value {
		if err := validateName(m.Value[i].Name); err != nil {
			return fmt.Errorf("section: %w", err)
		}
	}
	for i := range m.Terms {
		if err := validateName(m.Terms[i].Group); err != nil {
			return fmt.Errorf("group of terms: %w", err)
		}
	}
	return nil
}

// validateName wants a name that can be a part of a stored key.
func validateName(name string) error {
	if name == "" || len(name) > 32 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz") != "" {
		return fmt.Errorf("name %q: want 1 to 32 lower-case letters", name)
	}
	return nil
}

func (m *Mutation) size() int {
	size := len(m.Key) + m.Value.Size()
	for i := range m.Terms {
		for _, term := range m.Terms[i].Terms {
			size += len(term)
		}
	}
	return size
}
