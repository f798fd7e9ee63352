package main

import (
	"slices"
	"sync"
	"time"
)

// recorder keeps the times of operations. Its zero value has none.
type recorder struct {
	time time.Duration // of the load; not for concurrent use

	mu         sync.Mutex
	operations map[string]*operation
}

// operation has the times and errors of one kind.
type operation struct {
	times  []time.Duration
	bytes  int64 // of the answers
	errors int
	first  error
}

// add notes an operation, and returns how many there are of its name.
func (r *recorder) add(name string, took time.Duration, bytes int64, err error) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.operations[name]
	if o == nil {
		if r.operations == nil {
			r.operations = map[string]*operation{}
		}
		o = &operation{}
		r.operations[name] = o
	}
	switch {
	case err == nil:
		o.times = append(o.times, took)
		o.bytes += bytes
	case o.errors == 0:
		o.first = err
		fallthrough
	default:
		o.errors++
	}
	return len(o.times) + o.errors
}

// quantile returns the time that a share of the sorted times do not exceed, 0 if there are none.
func quantile(times []time.Duration, share float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(int(share*float64(len(times))), len(times)-1)]
}

// sorted returns the times in order.
func (o *operation) sorted() []time.Duration { return slices.Sorted(slices.Values(o.times)) }
