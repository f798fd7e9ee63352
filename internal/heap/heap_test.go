package heap

import (
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestPercent(t *testing.T) {
	const mib = 1 << 20
	for name, test := range map[string]struct {
		sizes scannedSizes
		want  int
	}{
		"a small heap":              {scannedSizes{live: 16 * mib}, 300},
		"with stacks and globals":   {scannedSizes{live: 16 * mib, others: 8 * mib}, 200},
		"half of the minimum":       {scannedSizes{live: 32 * mib}, 100},
		"more than half":            {scannedSizes{live: 40 * mib}, 100},
		"more than the minimum":     {scannedSizes{live: 65 * mib}, 100},
		"nothing known":             {scannedSizes{}, 64 * mib * 100},
		"small with very many wait": {scannedSizes{live: 16 * mib, others: 64 * mib}, 100},
	} {
		if got := percent(64*mib, test.sizes); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// TestSetMinimum: the percentage follows the heap, after each collection.
func TestSetMinimum(t *testing.T) {
	t.Setenv("GOGC", "")
	defer debug.SetGCPercent(debug.SetGCPercent(defaultPercent))
	stop := SetMinimum(64 << 20)
	wait := func(what string, ok func(percent int) bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			runtime.GC()
			percent := debug.SetGCPercent(defaultPercent)
			debug.SetGCPercent(percent)
			if ok(percent) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has a GOGC of %d", what, percent)
			}
		}
	}
	wait("a small heap", func(p int) bool { return p > 200 })
	large := make([]byte, 100<<20)
	wait("a large heap", func(p int) bool { return p == defaultPercent })
	runtime.KeepAlive(large)
	wait("a heap that is small again", func(p int) bool { return p > 200 })
	stop()
	for range 3 { // a collection may have begun to set it
		collect()
	}
	debug.SetGCPercent(defaultPercent)
	collect()
	if got := debug.SetGCPercent(defaultPercent); got != defaultPercent {
		t.Errorf("GOGC is %d behind the end", got)
	}
}

// collect collects, and returns when the functions after a collection have been called.
func collect() {
	called := make(chan struct{})
	stopped := &atomic.Bool{}
	afterCollections(stopped, sync.OnceFunc(func() { close(called) }))
	runtime.GC()
	<-called
	stopped.Store(true)
}

// TestEnvironment: the GOGC of the operator counts.
func TestEnvironment(t *testing.T) {
	t.Setenv("GOGC", "80")
	defer debug.SetGCPercent(debug.SetGCPercent(80))
	SetMinimum(1 << 40)
	collect()
	if got := debug.SetGCPercent(80); got != 80 {
		t.Errorf("GOGC is %d, want 80", got)
	}
}
