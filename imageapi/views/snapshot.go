package views

import (
	"context"

	"tallyman/storage"
)

// snapshot reads entries as they were at a revision.
type snapshot struct {
	backend  storage.Backend
	revision int64
	// known has entries at that revision by their keys, nil for those that were not there: all that a commit
	// has changed. before is the snapshot before that commit. Both are nil for no commit.
	known  map[string]*storage.Entry
	before *snapshot
}

// get returns the entries under keys, nil for those that are not there.
func (s *snapshot) get(ctx context.Context, keys ...string) (map[string]*storage.Entry, error) {
	found := make(map[string]*storage.Entry, len(keys))
	var missing []string
	for _, key := range keys {
		if e, ok := s.known[key]; ok {
			found[key] = e
		} else if _, listed := found[key]; !listed {
			found[key] = nil
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	result, err := s.backend.Get(ctx, storage.GetRequest{Keys: missing, Read: bodies})
	if err != nil {
		return nil, err
	}
	for i, key := range missing {
		e := result.Entries[i]
		if result.Revision > s.revision && (e == nil || e.Revision > s.revision) { // it may have changed since
			if e, err = s.getThen(ctx, key); err != nil {
				return nil, err
			}
		}
		found[key] = e
	}
	return found, nil
}

// getThen reads an entry that has changed since.
func (s *snapshot) getThen(ctx context.Context, key string) (*storage.Entry, error) {
	page, err := s.backend.Scan(ctx, storage.ScanRequest{From: key, To: key + "\x00", Limit: 1, Revision: s.revision, Read: bodies})
	if err != nil || len(page.Entries) == 0 {
		return nil, err
	}
	return &page.Entries[0], nil
}

// each calls fn with the entries in a range.
func (s *snapshot) each(ctx context.Context, request storage.ScanRequest, fn func(*storage.Entry) error) error {
	request.Revision = s.revision
	if request.Sections == nil {
		request.Read = bodies
	}
	return storage.EachOf(ctx, s.backend, request, fn)
}

var bodies = storage.Read{Sections: []string{storage.SectionBody}}
