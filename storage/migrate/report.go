package migrate

import (
	"log/slog"
	"sync/atomic"
)

// Report is the result of a copy.
type Report struct {
	// Total is the number of keys of the source when the copy began.
	Total int64
	// Created, Merged, Same and Deleted count keys by outcome.
	Created, Merged, Same, Deleted atomic.Int64
	// Corrupt is the number of skipped keys with unreadable values.
	Corrupt atomic.Int64
	// Compared is how many keys of the source were looked up in the target at
	// the end, Missing how many were not there, or lacked something. Additional is how
	// many keys only the target has.
	Compared, Missing, Additional int64
}

// leaveOut counts and logs a value that cannot be read.
func (r *Report) leaveOut(err error) {
	r.Corrupt.Add(1)
	slog.Error("corrupt value skipped", "err", err)
}

// Seen is how many keys were gone over.
func (r *Report) Seen() int64 { return r.Created.Load() + r.Merged.Load() + r.Same.Load() }

// Add adds the counts of an earlier part of the same copy.
func (r *Report) Add(earlier *Report) {
	r.Total = max(r.Total, earlier.Total)
	r.Created.Add(earlier.Created.Load())
	r.Merged.Add(earlier.Merged.Load())
	r.Same.Add(earlier.Same.Load())
	r.Deleted.Add(earlier.Deleted.Load())
	r.Corrupt.Add(earlier.Corrupt.Load())
}
