// Package heap lets a small heap grow before it is collected.
//
// The Go runtime collects when as much is allocated as is live. A registry has 15 MiB of live objects, so it would
// collect them anew for each 15 MiB that its requests allocate, which is a seventh of the CPU of a create. A heap
// that is larger than the minimum is collected as the runtime does by itself.
package heap

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// defaultPercent is the runtime's own GOGC.
const defaultPercent = 100

// SetMinimum lets the heap grow to a number of bytes before it is collected, and to twice its live objects if that
// is more, from the next collection on until stop is called. It does nothing if the environment has GOGC.
func SetMinimum(bytes uint64) (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	stopped := &atomic.Bool{}
	afterCollections(stopped, func() { debug.SetGCPercent(percent(bytes, scanned())) })
	return func() { stopped.Store(true) }
}

// afterCollections calls fn after each collection, in a goroutine of the runtime, until it is stopped.
func afterCollections(stopped *atomic.Bool, fn func()) {
	sentinel := new([1 << 10]byte) // not so small that the runtime puts others beside it
	runtime.AddCleanup(sentinel, func(struct{}) {
		if !stopped.Load() {
			fn()
			afterCollections(stopped, fn)
		}
	}, struct{}{})
}

// scannedSizes are what a collection looks at, in bytes.
type scannedSizes struct {
	live, others uint64 // of the heap, and of stacks and globals
}

// scanned returns the sizes of the last collection.
func scanned() scannedSizes {
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(samples)
	return scannedSizes{samples[0].Value.Uint64(), samples[1].Value.Uint64() + samples[2].Value.Uint64()}
}

// percent returns the GOGC with which the heap grows to minimum. The runtime lets it grow to
// live + (live + others) * GOGC / 100 (https://go.dev/doc/gc-guide#GOGC).
func percent(minimum uint64, s scannedSizes) int {
	if s.live >= minimum {
		return defaultPercent
	}
	return int(max(defaultPercent, (minimum-s.live)*100/max(1, s.live+s.others)))
}
