package bolt

import "tallyman/storage"

// Forget sets the state in memory back to one before, as after a commit that reached the
// file although its sync failed.
func (s *Store) Forget(w storage.Window, size storage.HistorySize) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.compacted, s.history = w.Current, w.Compacted, size
}

// HistorySize returns the size of the history that is known in memory.
func (s *Store) HistorySize() storage.HistorySize {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history
}
