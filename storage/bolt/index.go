package bolt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"tallyman/storage"
	"tallyman/storage/section"
)

// indexPrefix starts the keys of the meta bucket that hold the states of indexes.
var indexPrefix = []byte("index:")

func indexKey(name string) []byte { return append(slices.Clone(indexPrefix), name...) }

// IndexState implements storage.Backend.
func (s *Store) IndexState(ctx context.Context, name string) (state storage.IndexState, err error) {
	err = s.view(ctx, func(tx *bbolt.Tx) error {
		state, err = readState(tx.Bucket(metaBucket).Get(indexKey(name)))
		return err
	})
	return state, err
}

func readState(stored []byte) (state storage.IndexState, err error) {
	if stored == nil {
		return state, nil
	}
	if err := json.Unmarshal(stored, &state); err != nil {
		return state, fmt.Errorf("bolt: the state of an index: %w", err)
	}
	return state, nil
}

// indexed reports whether scans by term are exact at revision, 0 for now.
func indexed(tx *bbolt.Tx, revision int64) (bool, error) {
	found := false
	c := tx.Bucket(metaBucket).Cursor()
	for k, v := c.Seek(indexPrefix); bytes.HasPrefix(k, indexPrefix); k, v = c.Next() {
		state, err := readState(v)
		if err != nil || !state.Complete || revision != 0 && revision < state.Since {
			return false, err
		}
		found = true
	}
	return found, nil
}

// CountTerms implements storage.Backend. It counts up to maxCount entries a term.
func (s *Store) CountTerms(ctx context.Context, terms []string) ([]int64, error) {
	const maxCount = 1000 // beyond this the rarest term is not searched for
	counts := make([]int64, len(terms))
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		c := tx.Bucket(termsBucket).Cursor()
		for i, term := range terms {
			hash := storage.HashTerm(term)
			for k, _ := c.Seek(hash[:]); bytes.HasPrefix(k, hash[:]) && counts[i] < maxCount; k, _ = c.Next() {
				counts[i]++
			}
		}
		return nil
	})
	return counts, err
}

// FillIndex implements storage.Backend. It stores records of format 1 anew.
func (s *Store) FillIndex(ctx context.Context, req storage.FillRequest) (done bool, err error) {
	if req.Name == "" || req.Next.Version == "" {
		return false, errors.New("bolt: an index needs a name and a version")
	}
	err = s.do(ctx, func(tx *transaction) error {
		done = false
		state, err := readState(tx.meta.Get(indexKey(req.Name)))
		if err != nil || state != req.State {
			return err
		}
		for i := range req.Entries {
			if err := tx.fill(&req.Entries[i]); err != nil {
				return err
			}
		}
		next := req.Next
		if next.Complete && next.Since == 0 {
			next.Since = tx.current
		}
		stored, err := json.Marshal(next)
		if err != nil {
			return err
		}
		done = true
		return tx.meta.Put(indexKey(req.Name), stored)
	})
	return done && err == nil, err
}

// fill gives one entry its terms, unless it has another revision by now.
func (t *transaction) fill(e *storage.IndexedEntry) error {
	before := decodeRecord(t.data.Get([]byte(e.Key)))
	if before == nil || before.damaged || before.revision != e.Revision {
		return nil
	}
	after := &record{revision: before.revision, parts: slices.Clone(before.parts)}
	for i := range after.parts {
		if p := &after.parts[i]; p.name == storage.SectionBody {
			if data, err := section.Decode(p.data); err == nil {
				p.data = section.Append(nil, data) // format 1 had it plain
			}
		}
	}
	name, terms := groupPrefix+e.Group, storage.HashTerms(e.Terms)
	at, found := after.find(name)
	if found {
		after.parts = slices.Delete(after.parts, at, at+1)
	}
	if len(terms) > 0 {
		after.parts = slices.Insert(after.parts, at, part{name, before.revision, storage.EncodeTerms(terms)})
	}
	after.add(&e.Section, t.cutter)
	if _, _, err := t.index(e.Key, before, after); err != nil {
		return err
	}
	return t.set(e.Key, after)
}

// add adds a section that is made of the body of r, or puts it in the place of one that is. That keeps its
// revision, by which the history finds it.
func (r *record) add(s *storage.Section, cutter *section.Cutter) {
	if s.Data == nil {
		return
	}
	parts := cutter.Parts(s.Name, s.Data, encodingOf(s.Name))
	if at, has := r.find(s.Name); has {
		body, found := r.find(storage.SectionBody)
		if found && len(parts) == 1 && r.parts[at].revision >= r.parts[body].revision {
			r.parts[at].data = parts[0].Data
		}
		return
	}
	for _, p := range parts {
		at, _ := r.find(p.Name)
		r.parts = slices.Insert(r.parts, at, part{p.Name, r.revision, p.Data})
	}
}
