package cputime

import (
	"runtime"
	"testing"
	"time"
)

// TestOf: work counts, and waiting does not.
func TestOf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Log("durations are measured here")
		return
	}
	const want = 50 * time.Millisecond
	spins := 0
	if spent := Of(func() {
		for before := thread(); thread()-before < want; {
			spins++
		}
	}); spent < want || spins == 0 {
		t.Errorf("%v of work count as %v", want, spent)
	}
	if spent := Of(func() { time.Sleep(2 * want) }); spent > want {
		t.Errorf("waiting counts as %v", spent)
	}
	defer func() {
		if recover() == nil {
			t.Error("a panic is lost")
		}
	}()
	Of(func() { panic("") })
}
