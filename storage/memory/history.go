package memory

import (
	"context"
	"slices"

	"tallyman/storage"
)

// Scan implements storage.Backend.
func (s *Store) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	result := &storage.ScanResult{Count: -1, Revision: s.revision}
	state, keys := s.entries, s.between(req.From, req.To)
	if req.Revision != 0 {
		var err error
		if result.Revision, err = s.readable(req.Revision); err != nil {
			return nil, err
		}
		state, keys = s.past(req, result.Revision)
	}
	if req.Term != "" && !s.indexed(req.Revision) {
		return nil, storage.ErrNoIndex
	}
	if req.Count {
		result.Count = int64(len(keys))
	}
	read := req.Read
	if req.KeysOnly {
		read = storage.Read{Sections: []string{}}
	}
	term, size := storage.HashTerm(req.Term), 0
	for _, key := range keys {
		if req.Term != "" && !storage.HasTerm(state[key].terms, term) {
			continue
		}
		if len(result.Entries) == req.PageSize() || size >= storage.MaxPageBytes {
			result.More = true
			break
		}
		e := state[key].entry(key, &read)
		size += e.Value.Size()
		result.Entries = append(result.Entries, *e)
	}
	return result, nil
}

// readable returns the end of the commit that revision is in, or the error that says
// why the state at revision cannot be told.
func (s *Store) readable(revision int64) (int64, error) {
	switch {
	case revision > s.revision:
		return 0, storage.ErrFuture
	case !s.known(revision):
		return 0, storage.ErrCompacted
	}
	if at, found := s.find(revision); found {
		return s.log[at].commit, nil
	}
	return revision, nil
}

// known reports whether revision is one that the store has had and can go on from.
func (s *Store) known(revision int64) bool {
	if revision == s.compacted || revision == s.revision {
		return true
	}
	_, found := s.find(revision)
	return revision > s.compacted && (found || slices.Contains(s.bases, revision))
}

// find returns the place of the change with that revision, or of the one after it.
func (s *Store) find(revision int64) (at int, found bool) {
	return slices.BinarySearchFunc(s.log, revision, func(c *change, r int64) int { return int(c.revision - r) })
}

// past returns the entries of a range as they were at revision.
func (s *Store) past(req storage.ScanRequest, revision int64) (map[string]*version, []string) {
	state := map[string]*version{}
	for _, key := range s.between(req.From, req.To) {
		state[key] = s.entries[key]
	}
	at, _ := s.find(revision + 1)
	for _, c := range slices.Backward(s.log[at:]) {
		if c.key < req.From || c.key >= req.To {
			continue
		}
		if state[c.key] = c.previous; c.previous == nil {
			delete(state, c.key)
		}
	}
	keys := make([]string, 0, len(state))
	for key := range state {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return state, keys
}

// Log implements storage.Backend.
func (s *Store) Log(ctx context.Context, req storage.LogRequest) ([]storage.Change, error) {
	for {
		if err := s.lock(ctx); err != nil {
			return nil, err
		}
		changed := s.changed
		changes, err := s.changes(&req)
		s.mu.Unlock()
		if err != nil || len(changes) > 0 || req.NoWait {
			return changes, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Store) changes(req *storage.LogRequest) ([]storage.Change, error) {
	if !s.known(req.After) {
		return nil, storage.ErrCompacted
	}
	at, _ := s.find(req.After + 1)
	if req.Including && at > 0 && s.log[at-1].revision == req.After {
		at--
	}
	var changes []storage.Change
	size := 0
	for i, c := range s.log[at:] {
		if (i >= req.PageSize() || size >= storage.MaxPageBytes) && s.log[at+i-1].commit != c.commit {
			break
		}
		change := storage.Change{
			Revision: c.revision, Key: c.key, Commit: c.commit, Before: c.before, Delete: c.current == nil,
			Current: c.current.entry(c.key, &req.Read), Previous: c.previous.entry(c.key, &req.Read),
		}
		changes, size = append(changes, change), size+change.Size()
	}
	return changes, nil
}

// trimExceeding trims the history to its bounds. The newest commit stays.
func (s *Store) trimExceeding() {
	held, now := s.Oldest(), s.opts.Now()
	s.trim(func(c *change) bool {
		size := storage.HistorySize{Entries: int64(len(s.log)), Bytes: s.logBytes, First: c.revision, Last: c.commit}
		return c.commit != s.revision && s.opts.History.Exceeds(size, held, now)
	})
}

// trim drops whole commits from the old end of the history for as long as drop says so.
func (s *Store) trim(drop func(*change) bool) {
	for len(s.log) > 0 && drop(s.log[0]) {
		s.compacted = s.log[0].commit
		for len(s.log) > 0 && s.log[0].revision <= s.compacted {
			s.logBytes -= s.log[0].size()
			s.log = s.log[1:]
		}
	}
}

// size is the approximate size of the change and of the replaced value.
func (c *change) size() int64 {
	size := len(c.key) + changeOverhead
	if c.previous != nil {
		size += c.previous.value.Size()
	}
	return int64(size)
}

const changeOverhead = 100

// Compact implements storage.Backend.
func (s *Store) Compact(ctx context.Context, revision int64) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if revision > s.revision {
		return storage.ErrFuture
	}
	inside := false
	if at, found := s.find(revision); found {
		inside = s.log[at].commit > revision
	}
	s.trim(func(c *change) bool { return c.commit <= revision })
	if !inside {
		s.compacted = max(s.compacted, revision)
	}
	return nil
}

// Advance implements storage.Backend.
func (s *Store) Advance(ctx context.Context, revision int64) error {
	if err := storage.ValidateAdvance(revision); err != nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if revision > s.revision {
		s.revision, s.bases = revision, append(s.bases, revision)
		s.bases = s.bases[max(0, len(s.bases)-storage.KeptBases):]
	}
	return nil
}
