// Package cputime measures the CPU time that a function takes, which, unlike its duration, does
// not grow while the machine is busy.
package cputime

import (
	"runtime"
	"time"
)

// Of calls fn and returns the CPU time, of user and system, that the calling thread has spent in
// it. Time in other goroutines that fn starts is not counted. Where the system does not count for
// threads it returns the duration.
func Of(fn func()) (spent time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := thread()
	defer func() { spent = thread() - before }()
	fn()
	return 0
}
