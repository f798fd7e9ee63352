package storage

import (
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/storage"
)

// selector is a predicate taken apart: the requirements that are matched by terms, and
// the others.
type selector struct {
	rest     storage.SelectionPredicate
	required [][]string // of each of these an object carries at least one term
	excluded []string   // of these it carries none
	// The same, hashed.
	requiredTerms [][]Term
	excludedTerms []Term
}

// newSelector takes p apart. Without an index everything is left to p.
func (s *Store) newSelector(p storage.SelectionPredicate) *selector {
	sel := &selector{rest: p}
	if s.opts.Index == nil || p.Empty() {
		return sel
	}
	if p.Label != nil {
		sel.takeLabels(s.opts.Index, p.Label)
	}
	if p.Field != nil {
		sel.takeFields(s.opts.Index, p.Field)
	}
	for _, alternatives := range sel.required {
		sel.requiredTerms = append(sel.requiredTerms, HashTerms(alternatives))
	}
	sel.excludedTerms = HashTerms(sel.excluded)
	return sel
}

func (l *selector) takeLabels(index *Index, from labels.Selector) {
	requirements, selectable := from.Requirements()
	if !selectable {
		return
	}
	rest := labels.NewSelector()
	for _, r := range requirements {
		var terms []string
		for _, value := range r.ValuesUnsorted() {
			terms = append(terms, index.LabelTerm(r.Key(), value))
		}
		switch r.Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
			l.required = append(l.required, terms)
		case selection.NotEquals, selection.NotIn:
			l.excluded = append(l.excluded, terms...)
		default:
			rest = rest.Add(r)
		}
	}
	l.rest.Label = rest
}

func (l *selector) takeFields(index *Index, from fields.Selector) {
	var rest []fields.Selector
	for _, r := range from.Requirements() {
		term, ok := index.FieldTerm(r.Field, r.Value)
		equals := r.Operator == selection.Equals || r.Operator == selection.DoubleEquals
		switch {
		case ok && equals:
			l.required = append(l.required, []string{term})
		case ok && r.Operator == selection.NotEquals:
			l.excluded = append(l.excluded, term)
		case equals:
			rest = append(rest, fields.OneTermEqualSelector(r.Field, r.Value))
		default:
			rest = append(rest, fields.OneTermNotEqualSelector(r.Field, r.Value))
		}
	}
	l.rest.Field = fields.AndSelectors(rest...)
}

// everything reports whether all objects match.
func (l *selector) everything() bool { return !l.usesTerms() && l.rest.Empty() }

func (l *selector) usesTerms() bool { return len(l.required) > 0 || len(l.excluded) > 0 }

// matches fails if the object cannot be decoded where that is needed; an object
// without the attributes that the selector is about matches nothing, as upstream.
func (l *selector) matches(e *Encoded) (bool, error) {
	if e == nil || l.everything() {
		return e != nil, nil
	}
	if l.usesTerms() {
		terms, err := e.terms()
		if err != nil || !l.matchesTerms(terms) {
			return false, err
		}
	}
	if l.rest.Empty() {
		return true, nil
	}
	if _, err := e.Object(); err != nil {
		return false, err
	}
	labels, fields, err := e.attributes(l.rest.GetAttrs)
	return err == nil && l.rest.MatchesObjectAttributes(labels, fields), nil
}

func (l *selector) matchesTerms(terms []Term) bool {
	for _, alternatives := range l.requiredTerms {
		if !hasAny(terms, alternatives) {
			return false
		}
	}
	return !hasAny(terms, l.excludedTerms)
}

func hasAny(terms, wanted []Term) bool {
	for _, t := range wanted {
		if HasTerm(terms, t) {
			return true
		}
	}
	return false
}
