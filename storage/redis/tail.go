package redis

import (
	"sort"
	"sync"

	goredis "github.com/redis/go-redis/v9"
)

// tailEntries bounds how many entries a tail has.
const tailEntries = 5000

// tail is the end of the log as the monitor has read it. All followers in the process share
// it. Each entry names its predecessor, so a gap is noticed.
type tail struct {
	mu      sync.Mutex
	start   int64 // entries has every change after it; 0 if nothing is known
	entries []logEntry
}

// reset empties the tail. The next entry follows revision.
func (t *tail) reset(revision int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.start, t.entries = revision, nil
}

// end returns the last revision, 0 if nothing is known.
func (t *tail) end() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last()
}

func (t *tail) last() int64 { return lastRevision(t.entries, t.start) }

// add appends messages read after the end, and returns the newest revision. At a gap (an
// Advance, another history) the tail restarts, and followers ask the store.
func (t *tail) add(messages []goredis.XMessage) (newest int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range messages {
		e, err := messageEntry(messages[i])
		if err != nil {
			t.start, t.entries = 0, nil
			continue
		}
		if newest = e.revision; e.before == 0 || e.before != t.last() {
			t.start, t.entries = e.revision, nil
			continue
		}
		t.entries = append(t.entries, e)
	}
	if excess := len(t.entries) - tailEntries; excess > 0 {
		t.start = t.entries[excess-1].revision
		t.entries = append([]logEntry(nil), t.entries[excess:]...)
	}
	return newest
}

// after returns whole commits after a revision, about limit entries. It returns false if
// the revision is unknown.
func (t *tail) after(revision int64, limit int) ([]logEntry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := t.entries
	if revision != t.start {
		at := sort.Search(len(entries), func(i int) bool { return entries[i].revision >= revision })
		if at == len(entries) || entries[at].revision != revision {
			return nil, false
		}
		entries = entries[at+1:]
	}
	return wholeCommits(entries, limit), true
}
