package storage

// Followed returns the revision up to which watches have been told, 0 if there has
// been none.
func (s *Store) Followed() int64 { return s.follower.position() }
