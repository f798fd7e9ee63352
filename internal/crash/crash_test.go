package crash

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// nilMap panics.
func nilMap(key string) error {
	var m map[string]int
	write := func(m map[string]int) { m[key]++ }
	write(m)
	return nil
}

func TestGuard(t *testing.T) {
	var out bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&out, nil)))
	defer slog.SetDefault(before)

	logged.Clear() // the test may run more than once
	counted := testutil.ToFloat64(panicsTotal.WithLabelValues("test"))
	errPlain := errors.New("plain")
	if err := Guard("test", func() error { return errPlain }); !errors.Is(err, errPlain) {
		t.Errorf("an error became %v", err)
	}
	if err := Guard("test", func() error { return nil }); err != nil {
		t.Errorf("no error became %v", err)
	}
	for range 3 {
		err := Guard("test", func() error {
			return nilMap("a")
		})
		var crash *Error
		if !errors.As(err, &crash) || crash.Task != "test" || !strings.Contains(err.Error(), "nil map") {
			t.Errorf("a panic became %v", err)
		}
	}
	if err := Guard("other", func() error { panic("elsewhere") }); err == nil {
		t.Error("a panic was no error")
	}
	if n := testutil.ToFloat64(panicsTotal.WithLabelValues("test")) - counted; n != 3 {
		t.Errorf("counted %v panics, want 3", n)
	}
	if n := strings.Count(out.String(), "recovered from a panic"); n != 4 {
		t.Errorf("logged %d panics, want 4", n)
	}
	if n := strings.Count(out.String(), "crash_test.go"); n < 2 || strings.Count(out.String(), "stack=") != 2 {
		t.Errorf("want the stacks of two places, each once:\n%s", out.String())
	}
}
