package server

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
)

// descend needs a stack of some 200 bytes for each of its calls.
func descend(depth int) int {
	var frame [128]byte
	if depth == 0 {
		return int(frame[depth])
	}
	return descend(depth-1) + int(frame[depth%len(frame)])
}

// BenchmarkStack measures a handler that needs 20 KiB of stack, each time on a new goroutine.
func BenchmarkStack(b *testing.B) {
	deep := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { runtime.KeepAlive(descend(100)) })
	for name, handler := range map[string]http.Handler{"grown on the way": deep, "grown at once": withStack(deep)} {
		b.Run(name, func(b *testing.B) {
			r, done := httptest.NewRequest(http.MethodGet, "/", nil), make(chan struct{})
			for b.Loop() {
				go func() {
					handler.ServeHTTP(nil, r)
					done <- struct{}{}
				}()
				<-done
			}
		})
	}
}
