package storage

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// HistoryBounds are the bounds of a Backend's history. Watches and paged lists from an
// older revision get 410 Gone.
type HistoryBounds struct {
	// MaxBytes is the maximum size of changes and replaced values. It takes precedence
	// over the other bounds, but the newest commit always stays. 0 means 256 MiB.
	MaxBytes int64
	// MinAge is the time that every change stays, within MaxBytes. 0 means 10 minutes.
	MinAge time.Duration
	// MaxEntries is the maximum number of changes older than MinAge. 0 means 10 000.
	MaxEntries int
	// MaxAge is the age at which a change is dropped. 0 means one hour.
	MaxAge time.Duration
}

// SetDefaults replaces zero values by the defaults.
func (b *HistoryBounds) SetDefaults() {
	if b.MaxBytes == 0 {
		b.MaxBytes = 256 << 20
	}
	if b.MinAge == 0 {
		b.MinAge = 10 * time.Minute
	}
	if b.MaxEntries == 0 {
		b.MaxEntries = 10_000
	}
	if b.MaxAge == 0 {
		b.MaxAge = time.Hour
	}
}

// Validate returns an error for a negative bound.
func (b *HistoryBounds) Validate() error {
	switch {
	case b.MaxBytes < 0:
		return fmt.Errorf("history: %d bytes: want a number that is not negative", b.MaxBytes)
	case b.MinAge < 0:
		return fmt.Errorf("history: least age %s is negative", b.MinAge)
	case b.MaxEntries < 0:
		return fmt.Errorf("history: %d entries: want a number that is not negative", b.MaxEntries)
	case b.MaxAge < 0:
		return fmt.Errorf("history: age %s is negative", b.MaxAge)
	}
	return nil
}

// HistorySize is the size of a history and the oldest commit in it.
type HistorySize struct {
	// Entries is the number of changes, Bytes the size of changes and replaced values.
	Entries, Bytes int64
	// First and Last are the revisions of the first and the last change of the oldest
	// commit.
	First, Last int64
}

// Exceeds reports whether the oldest commit of a history must be dropped. held is the
// oldest revision with a Hold, 0 if there is none.
func (b *HistoryBounds) Exceeds(s HistorySize, held int64, now time.Time) bool {
	age := now.Sub(time.UnixMicro(s.First)) // below 0 if the clock went back, or after an Advance
	switch {
	case s.Bytes > b.MaxBytes:
		return true
	case held != 0 && s.Last > held, age >= 0 && age < b.MinAge:
		return false
	}
	return s.Entries > int64(b.MaxEntries) || age > b.MaxAge
}

const (
	// holdProgress is the lifetime of a hold after its last progress, holdTime its maximum
	// lifetime.
	holdProgress = 10 * time.Second
	holdTime     = 30 * time.Minute
)

// Holds is the set of holds on a Backend's history. The zero value is ready to use.
type Holds struct {
	mu    sync.Mutex
	holds map[*Hold]struct{}
}

// Hold keeps the history after a revision, within HistoryBounds.MaxBytes. It ends with
// Release, 10 seconds after the last Progress, or after 30 minutes.
type Hold struct {
	all      *Holds
	revision int64
	until    time.Time
	progress atomic.Int64 // Unix nanoseconds
}

// Hold returns a hold on the history after revision. The caller releases it.
func (h *Holds) Hold(revision int64) *Hold {
	hold := &Hold{all: h, revision: revision, until: time.Now().Add(holdTime)}
	hold.Progress()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.holds == nil {
		h.holds = map[*Hold]struct{}{}
	}
	h.holds[hold] = struct{}{}
	return hold
}

// Progress extends the hold by 10 seconds.
func (h *Hold) Progress() { h.progress.Store(time.Now().UnixNano()) }

// Release ends the hold. It may be called more than once.
func (h *Hold) Release() {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	delete(h.all.holds, h)
}

// Oldest returns the oldest revision that is held, 0 if none is.
func (h *Holds) Oldest() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	now, oldest := time.Now(), int64(0)
	for hold := range h.holds {
		if now.After(hold.until) {
			delete(h.holds, hold)
			continue
		}
		if now.Sub(time.Unix(0, hold.progress.Load())) > holdProgress {
			continue
		}
		if oldest == 0 || hold.revision < oldest {
			oldest = hold.revision
		}
	}
	return oldest
}
