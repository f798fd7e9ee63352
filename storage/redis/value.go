package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"tallyman/storage"
	"tallyman/storage/section"
)

// groupPrefix starts the names of the parts of a value that are groups of terms.
const groupPrefix = "#"

// loadBatch bounds how many values one command reads, so that no other client
// of the server waits long for its turn.
const loadBatch = 64

// decodeValue parses a script's reply about a value, {revision, name, data, …}. A malformed
// part is Entry.Err.
func decodeValue(key string, r reply, read *storage.Read) *storage.Entry {
	e := &storage.Entry{Key: key, Revision: r.integer(0)}
	var groups [][]storage.Term
	var chunks map[string][]byte
	for i := 1; i+1 < len(r); i += 2 {
		if name := r.text(i); section.Owner(name) != name && !strings.HasPrefix(name, groupPrefix) {
			if chunks == nil {
				chunks = make(map[string][]byte, len(r)/2)
			}
			_, data, _ := strings.Cut(r.text(i+1), ":")
			chunks[name] = []byte(data)
		}
	}
	for i := 1; i+1 < len(r); i += 2 {
		name, stored := r.text(i), r.text(i+1)
		_, data, ok := strings.Cut(stored, ":")
		if strings.HasPrefix(name, groupPrefix) {
			groups = append(groups, storage.DecodeTerms([]byte(data)))
			continue
		}
		if section.Owner(name) != name || !read.Wants(name) {
			continue
		}
		decoded, err := section.Join(nil, name, []byte(data), func(chunk string) []byte { return chunks[chunk] })
		if err != nil || !ok {
			e.Err = &storage.CorruptError{Reason: "section " + name + ": " + section.ErrMalformed.Error()}
			continue
		}
		e.Value = append(e.Value, storage.Section{Name: name, Data: decoded})
	}
	if read.Terms {
		if e.Terms = storage.MergeTerms(groups...); len(groups) == 1 {
			e.Terms = groups[0]
		}
	}
	return e
}

// hashed returns the stored form of one term.
func hashed(term string) string {
	hash := storage.HashTerm(term)
	return string(hash[:])
}

// wants are the arguments that select the parts of values for a script to read.
func wants(read *storage.Read) (names, terms string) {
	names, terms = "*", "0"
	if read.Sections != nil {
		names = strings.Join(read.Sections, ",")
		if read.Fresh {
			names = "!," + names
		}
	}
	if read.Terms {
		terms = "1"
	}
	return names, terms
}

// ref asks for the value that a key had at a revision.
type ref struct {
	key      string
	revision int64
	entry    *storage.Entry // nil until loaded, and if the value is gone
}

// load fills in the entries of refs from the cache or from Redis, and returns the number of
// filled refs. It stops at storage.MaxPageBytes, but not before least refs. A value never
// changes, so the time of the read does not matter.
func (s *Store) load(ctx context.Context, refs []ref, least int, read *storage.Read) (int, error) {
	size := 0
	for n := 0; n < len(refs); {
		loaded, err := s.loadSome(ctx, refs[n:min(n+loadBatch, len(refs))], read)
		if err != nil {
			return n, err
		}
		for range loaded {
			if e := refs[n].entry; e != nil {
				size += e.Value.Size()
			}
			if n++; n >= least && size >= storage.MaxPageBytes {
				return n, nil
			}
		}
	}
	return len(refs), nil
}

// loadSome fills in at least one of refs, up to storage.MaxPageBytes, and returns their
// number.
func (s *Store) loadSome(ctx context.Context, refs []ref, read *storage.Read) (int, error) {
	var missing []int
	for i := range refs {
		if refs[i].entry = s.cache.Get(refs[i].key, refs[i].revision, read); refs[i].entry == nil {
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return len(refs), nil
	}
	names, terms := wants(read)
	keys, args := []string{s.meta}, []any{formatAny, names, terms, storage.MaxPageBytes}
	for _, i := range missing {
		r := &refs[i]
		keys = append(keys, s.valueKey(r.key), s.historyKey(r.key), s.objectKey(r.key), s.versionKey(r.revision))
		args = append(args, digits(r.revision))
	}
	values, err := s.read(ctx, valuesScript, keys, args...)
	if err != nil {
		return 0, err
	}
	for i := range values {
		r := &refs[missing[i]]
		if value := values.list(i); len(value) > 0 {
			r.entry = decodeValue(r.key, value, read)
			s.cache.Offer(r.key, r.entry, read)
		}
	}
	if len(values) < len(missing) {
		return missing[len(values)], nil
	}
	return len(refs), nil
}

func digits(n int64) string { return strconv.FormatInt(n, 10) }

func parseDigits(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64) // the scripts reply with digits
	return n
}

// getBatch bounds how many values one call of Get reads.
const getBatch = 256

// Get implements storage.Backend.
func (s *Store) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	result, _, err := s.getUnder(ctx, &lock{}, req)
	return result, err
}

// getUnder is Get once locks, if there are any, are taken. It returns false if another process holds one.
func (s *Store) getUnder(ctx context.Context, locks *lock, req storage.GetRequest) (_ *storage.GetResult, taken bool, err error) {
	if len(req.Keys) > getBatch {
		return nil, false, fmt.Errorf("redis: want %d keys at once: at most %d", len(req.Keys), getBatch)
	}
	names, terms := wants(&req.Read)
	keys := append([]string{s.meta, s.index}, locks.keys...)
	args := []any{formatAny, names, terms, len(locks.keys), locks.token, lockTTL.Milliseconds()}
	known := make([]*storage.Entry, len(req.Keys))
	for i, key := range req.Keys {
		known[i] = s.cache.Latest(key, &req.Read)
		keys = append(keys, s.valueKey(key), s.objectKey(key))
		args = append(args, digits(revisionOf(known[i])), "["+bound(key), "("+bound(key+"\x00"))
	}
	var r reply
	if len(locks.keys) > 0 {
		r, err = s.run(ctx, getScript.onMaster, keys, args...)
	} else {
		r, err = s.read(ctx, getScript, keys, args...)
	}
	if err != nil {
		return nil, false, err
	}
	if len(r) == 1 && len(req.Keys) > 0 {
		return nil, false, nil
	}
	result := &storage.GetResult{Revision: r.integer(0), Entries: make([]*storage.Entry, len(req.Keys))}
	s.observe(result.Revision)
	for i, key := range req.Keys {
		value := r.list(i + 1)
		switch {
		case len(value) == 0:
			if _, revision, ok := splitMember(r.text(i + 1)); ok {
				if _, err := s.forget(ctx, key, revision); err != nil {
					return nil, true, err
				}
			}
		case known[i] != nil && value.integer(0) == known[i].Revision:
			result.Entries[i] = known[i]
		default:
			result.Entries[i] = decodeValue(key, value, &req.Read)
			s.cache.Add(key, result.Entries[i], &req.Read)
		}
	}
	return result, true, nil
}
