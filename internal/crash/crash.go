// Package crash turns panics in background goroutines into errors, so that one bad
// input ends the work on that input and not the process.
package crash

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Error is a panic that Guard has recovered from.
type Error struct {
	// Task is the name that was given to Guard.
	Task string
	// Value is the value of the panic.
	Value any
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("panic in %s: %v", e.Task, e.Value) }

var panicsTotal = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "imageapi_panics_total",
	Help: "Panics that were recovered from, by task. Each is a defect: the log has its stack.",
}, []string{"task"})

// Collectors returns this package's metrics, for the process to register.
func Collectors() []prometheus.Collector { return []prometheus.Collector{panicsTotal} }

// logged has the places of panics whose stacks are in the log already.
var logged sync.Map

// Guard runs fn and returns its error, or an *Error if fn panics. It logs the stack
// of the first panic at each place in the code, and counts every panic.
func Guard(task string, fn func() error) (err error) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		err = &Error{Task: task, Value: value}
		panicsTotal.WithLabelValues(task).Inc()
		stack := make([]byte, 64<<10)
		stack = stack[:runtime.Stack(stack, false)]
		if _, known := logged.LoadOrStore(origin(), true); known {
			slog.Error("recovered from a panic", "task", task, "panic", fmt.Sprint(value))
			return
		}
		slog.Error("recovered from a panic", "task", task, "panic", fmt.Sprint(value), "stack", string(stack))
	}()
	return fn()
}

// origin returns the file and line that panicked: the first frame outside of the
// runtime, of those below the deferred function that calls origin.
func origin() string {
	callers := make([]uintptr, 32)
	const skip = 3 // runtime.Callers, origin and the deferred function
	frames := runtime.CallersFrames(callers[:runtime.Callers(skip, callers)])
	for {
		frame, more := frames.Next()
		if !more || frame.Func == nil || !isRuntime(frame.Function) {
			return fmt.Sprintf("%s:%d", frame.File, frame.Line)
		}
	}
}

func isRuntime(function string) bool {
	const prefix = "runtime."
	return len(function) > len(prefix) && function[:len(prefix)] == prefix
}
