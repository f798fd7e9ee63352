package objects

import (
	"context"
	"errors"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
)

// selector is a predicate taken apart: the requirements that are matched by terms, and
// the others.
type selector struct {
	rest     k8sstorage.SelectionPredicate
	required [][]string // of each of these an object carries at least one term
	excluded []string   // of these it carries none
	// The same, hashed.
	requiredTerms [][]storage.Term
	excludedTerms []storage.Term
}

// newSelector takes p apart. Without an index everything is left to p.
func (s *Store) newSelector(p k8sstorage.SelectionPredicate) *selector {
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
		sel.requiredTerms = append(sel.requiredTerms, storage.HashTerms(alternatives))
	}
	sel.excludedTerms = storage.HashTerms(sel.excluded)
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

func (l *selector) matchesTerms(terms []storage.Term) bool {
	for _, alternatives := range l.requiredTerms {
		if !hasAny(terms, alternatives) {
			return false
		}
	}
	return !hasAny(terms, l.excludedTerms)
}

func hasAny(terms, wanted []storage.Term) bool {
	for _, t := range wanted {
		if storage.HasTerm(terms, t) {
			return true
		}
	}
	return false
}

// plan chooses how the list is read: by the terms of the requirement that the fewest
// entries meet, or, where the index cannot be used, entry by entry.
func (l *lister) plan(ctx context.Context) error {
	l.planned, l.indexed = true, l.usesIndex()
	if len(l.selector.required) == 0 || !l.indexed {
		return nil
	}
	counts, err := l.store.backend.CountTerms(ctx, slices.Concat(l.selector.required...))
	if errors.Is(err, storage.ErrNoIndex) {
		l.store.indexer.lost()
		l.indexed = false
		return nil
	}
	if err != nil {
		return err
	}
	best := int64(-1)
	for _, alternatives := range l.selector.required {
		sum := int64(0)
		for _, n := range counts[:len(alternatives)] {
			sum += n
		}
		counts = counts[len(alternatives):]
		if best < 0 || sum < best {
			best, l.terms = sum, alternatives
		}
	}
	return nil
}

// usesIndex reports whether entries have their terms at the list's revision.
func (l *lister) usesIndex() bool {
	if l.pinned == 0 {
		return l.store.indexer.since.Load() != 0
	}
	return l.store.indexer.trusted(l.pinned)
}

// scan reads one page: of all entries, or of those that carry one of l.terms.
func (l *lister) scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	if len(l.terms) > 0 {
		result, err := scanAny(ctx, l.store.backend, req, l.terms)
		if !errors.Is(err, storage.ErrNoIndex) {
			return result, err
		}
		l.store.indexer.lost()
		l.terms, l.indexed = nil, false
	}
	return l.store.backend.Scan(ctx, req)
}

// scanAny reads one page of the entries that carry any of terms, each once.
func scanAny(ctx context.Context, b storage.Backend, req storage.ScanRequest, terms []string) (*storage.ScanResult, error) {
	req.Term = terms[0]
	result, err := b.Scan(ctx, req)
	if err != nil || len(terms) == 1 {
		return result, err
	}
	req.Revision = result.Revision
	pages := []*storage.ScanResult{result}
	for _, req.Term = range terms[1:] {
		page, err := b.Scan(ctx, req)
		if err != nil {
			return nil, err
		}
		pages = append(pages, page)
	}
	return mergePages(pages, req.Limit), nil
}

// mergePages merges pages of one range. A page that is not the last one of its term
// ends the merged page, as entries with greater keys may be missing from it.
func mergePages(pages []*storage.ScanResult, limit int) *storage.ScanResult {
	merged := &storage.ScanResult{Count: -1, Revision: pages[0].Revision}
	end := ""
	for _, page := range pages {
		merged.Entries = append(merged.Entries, page.Entries...)
		if last := len(page.Entries) - 1; page.More && (end == "" || page.Entries[last].Key < end) {
			end = page.Entries[last].Key
		}
		merged.More = merged.More || page.More
	}
	slices.SortFunc(merged.Entries, func(a, b storage.Entry) int { return strings.Compare(a.Key, b.Key) })
	merged.Entries = slices.CompactFunc(merged.Entries, func(a, b storage.Entry) bool { return a.Key == b.Key })
	if end != "" {
		merged.Entries = slices.DeleteFunc(merged.Entries, func(e storage.Entry) bool { return e.Key > end })
	}
	if limit > 0 && len(merged.Entries) > limit {
		merged.Entries, merged.More = merged.Entries[:limit], true
	}
	return merged
}
