package objects

// Followed returns the revision up to which watches have been told, 0 if there has
// been none.
func (s *Store) Followed() int64 { return s.follower.position() }

// Joined returns the number of watches that have caught up and follow.
func (s *Store) Joined() int {
	s.follower.mu.Lock()
	defer s.follower.mu.Unlock()
	return len(s.follower.watches)
}
