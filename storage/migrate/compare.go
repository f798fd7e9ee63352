package migrate

import (
	"bytes"
	"context"
	"errors"

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
		for i := range page.Entries {
			e := &page.Entries[i]
			if isPosition(e.Key) || deleted[e.Key] || e.Err != nil {
				continue
			}
			if err := lookUp(ctx, to, e, merge, report); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
		next = page.Entries[len(page.Entries)-1].Key + "\x00"
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

// lookUp compares one entry.
func lookUp(ctx context.Context, to storage.Backend, e *storage.Entry, merge Merge, report *Report) error {
	held, err := holds(ctx, to, e, merge)
	if err != nil {
		return err
	}
	report.Compared++
	if !held {
		report.Missing++
	}
	return nil
}

func holds(ctx context.Context, to storage.Backend, e *storage.Entry, merge Merge) (bool, error) {
	entry, _, err := storage.GetEntry(ctx, to, e.Key, storage.Read{})
	if err != nil || entry == nil {
		return false, err
	}
	value, held := e.Value.Body(), entry.Value.Body()
	if bytes.Equal(held, value) {
		return len(lacking(entry, e)) == 0, nil
	}
	merged, err := merge(e.Key, value, held)
	return err == nil && bytes.Equal(merged, held), nil
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
