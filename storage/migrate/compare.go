package migrate

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"tallyman/storage"
)

// Compare looks up every key of from in to, and counts in the report the keys that are absent
// or whose value lacks something that from has. since is a revision of to from before the
// copy: keys deleted in to after it are not missing.
func Compare(ctx context.Context, from Reader, to storage.Backend, merge Merge, since int64, report *Report) error {
	deleted, err := deletedSince(ctx, to, since)
	if err != nil {
		return err
	}
	if report.Additional, err = additional(ctx, from, to); err != nil {
		return err
	}
	next := firstKey
	for {
		page, err := from.Scan(ctx, storage.ScanRequest{From: next, To: lastKey, Limit: pageSize})
		if err != nil {
			return err
		}
		if page.More {
			next = page.Entries[len(page.Entries)-1].Key + "\x00"
		}
		entries := slices.DeleteFunc(page.Entries, func(e storage.Entry) bool { return isPosition(e.Key) || deleted[e.Key] || e.Err != nil })
		if err := comparePage(ctx, entries, to, merge, report); err != nil {
			return err
		}
		if !page.More {
			return nil
		}
	}
}

// additional counts the keys that are only in the target: its own keys, and keys whose
// deletion in the source was not copied.
func additional(ctx context.Context, from Reader, to storage.Backend) (int64, error) {
	theirs, ours := keysOf(ctx, from), keysOf(ctx, to)
	only := int64(0)
	key, err := ours()
	other, otherErr := theirs()
	for err = errors.Join(err, otherErr); err == nil && key != ""; {
		switch {
		case other != "" && other < key:
			other, err = theirs()
		case other == key:
			other, err = theirs()
			key, otherErr = ours()
			err = errors.Join(err, otherErr)
		default:
			if !isPosition(key) {
				only++
			}
			key, err = ours()
		}
	}
	return only, err
}

// keysOf returns an iterator over the keys of s, which ends with "".
func keysOf(ctx context.Context, s interface {
	Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error)
}) func() (string, error) {
	req := storage.ScanRequest{From: firstKey, To: lastKey, Limit: keysPage, KeysOnly: true}
	page, more := []storage.Entry{}, true
	return func() (string, error) {
		if len(page) == 0 && more {
			result, err := s.Scan(ctx, req)
			if err != nil {
				return "", err
			}
			page, more = result.Entries, result.More
		}
		if len(page) == 0 {
			return "", nil
		}
		key := page[0].Key
		page, req.From = page[1:], key+"\x00"
		return key, nil
	}
}

// keysPage is how many keys are read at a time.
const keysPage = 1000

// comparePage looks up the entries of a page.
func comparePage(ctx context.Context, page []storage.Entry, to storage.Backend, merge Merge, report *Report) error {
	held, err := heldUnder(ctx, to, page)
	if err != nil {
		return err
	}
	for i := range page {
		report.Compared++
		if !holds(held[i], &page[i], merge) {
			report.Missing++
		}
	}
	return nil
}

// heldUnder returns the entries of a store under the keys of a page, nil for those that it lacks.
func heldUnder(ctx context.Context, s storage.Backend, page []storage.Entry) ([]*storage.Entry, error) {
	if len(page) == 0 {
		return nil, nil
	}
	request := storage.GetRequest{}
	for i := range page {
		request.Keys = append(request.Keys, page[i].Key)
	}
	result, err := s.Get(ctx, request)
	if err != nil {
		return nil, err
	}
	return result.Entries, nil
}

// holds reports whether the target's entry, nil for none, has all of e.
func holds(entry, e *storage.Entry, merge Merge) bool {
	if entry == nil {
		return false
	}
	value, held := e.Value.Body(), entry.Value.Body()
	if bytes.Equal(held, value) {
		return len(lacking(entry, e)) == 0
	}
	merged, err := merge(e.Key, value, held)
	return err == nil && bytes.Equal(merged, held)
}

// deletedSince returns the keys whose deletion is in the log after since, none if
// the log does not reach so far.
func deletedSince(ctx context.Context, to storage.Backend, since int64) (map[string]bool, error) {
	deleted := map[string]bool{}
	for {
		window, err := to.Window(ctx)
		if err != nil || since >= window.Current {
			return deleted, err
		}
		changes, err := to.Log(ctx, storage.LogRequest{After: since, Limit: logPage, NoWait: true, Read: storage.Read{Sections: []string{}}})
		if errors.Is(err, storage.ErrCompacted) {
			return deleted, nil
		}
		if err != nil || len(changes) == 0 {
			return deleted, err
		}
		for i := range changes {
			deleted[changes[i].Key] = changes[i].Delete
			since = changes[i].Revision
		}
	}
}
