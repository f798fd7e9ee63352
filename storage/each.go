package storage

import "context"

// Scanner is a store that can be read through in order of its keys.
type Scanner interface {
	Scan(ctx context.Context, req ScanRequest) (*ScanResult, error)
}

// Each calls fn with every entry whose key starts with prefix, page by page. It ends with the
// first error of fn. Pages of values are small because an object may be large.
func Each(ctx context.Context, s Scanner, prefix string, keysOnly bool, fn func(*Entry) error) error {
	page := 32
	if keysOnly {
		page = 500
	}
	return EachOf(ctx, s, ScanRequest{From: prefix, To: prefix + "\xff", Limit: page, KeysOnly: keysOnly}, fn)
}

// EachWithTerm calls fn with every entry, without its value, whose key starts with prefix and that
// carries a term, page by page. It ends with the first error of fn.
func EachWithTerm(ctx context.Context, s Scanner, prefix, term string, fn func(*Entry) error) error {
	return EachOf(ctx, s, ScanRequest{From: prefix, To: prefix + "\xff", Term: term, Limit: 500, KeysOnly: true}, fn)
}

// EachOf calls fn with every entry that request asks for, in pages of its Limit. It ends with the first
// error of fn.
func EachOf(ctx context.Context, s Scanner, request ScanRequest, fn func(*Entry) error) error {
	for {
		result, err := s.Scan(ctx, request)
		if err != nil {
			return err
		}
		for i := range result.Entries {
			if err := fn(&result.Entries[i]); err != nil {
				return err
			}
		}
		if !result.More {
			return nil
		}
		request.From = result.Entries[len(result.Entries)-1].Key + "\x00"
	}
}
