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
	request := ScanRequest{From: prefix, To: prefix + "\xff", Limit: page, KeysOnly: keysOnly}
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
