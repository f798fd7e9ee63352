package storage

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// plan chooses how the list is read: by the terms of the requirement that the fewest
// entries meet, or, where the index cannot be used, entry by entry.
func (l *lister) plan(ctx context.Context) error {
	l.planned, l.indexed = true, l.usesIndex()
	if len(l.selector.required) == 0 || !l.indexed {
		return nil
	}
	counts, err := l.store.backend.CountTerms(ctx, slices.Concat(l.selector.required...))
	if errors.Is(err, ErrNoIndex) {
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
func (l *lister) scan(ctx context.Context, req ScanRequest) (*ScanResult, error) {
	if len(l.terms) > 0 {
		result, err := scanAny(ctx, l.store.backend, req, l.terms)
		if !errors.Is(err, ErrNoIndex) {
			return result, err
		}
		l.store.indexer.lost()
		l.terms, l.indexed = nil, false
	}
	return l.store.backend.Scan(ctx, req)
}

// scanAny reads one page of the entries that carry any of terms, each once.
func scanAny(ctx context.Context, b Backend, req ScanRequest, terms []string) (*ScanResult, error) {
	req.Term = terms[0]
	result, err := b.Scan(ctx, req)
	if err != nil || len(terms) == 1 {
		return result, err
	}
	req.Revision = result.Revision
	pages := []*ScanResult{result}
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
func mergePages(pages []*ScanResult, limit int) *ScanResult {
	merged := &ScanResult{Count: -1, Revision: pages[0].Revision}
	end := ""
	for _, page := range pages {
		merged.Entries = append(merged.Entries, page.Entries...)
		if last := len(page.Entries) - 1; page.More && (end == "" || page.Entries[last].Key < end) {
			end = page.Entries[last].Key
		}
		merged.More = merged.More || page.More
	}
	slices.SortFunc(merged.Entries, func(a, b Entry) int { return strings.Compare(a.Key, b.Key) })
	merged.Entries = slices.CompactFunc(merged.Entries, func(a, b Entry) bool { return a.Key == b.Key })
	if end != "" {
		merged.Entries = slices.DeleteFunc(merged.Entries, func(e Entry) bool { return e.Key > end })
	}
	if limit > 0 && len(merged.Entries) > limit {
		merged.Entries, merged.More = merged.Entries[:limit], true
	}
	return merged
}
