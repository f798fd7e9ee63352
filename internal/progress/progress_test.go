package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestLines: without a terminal there is a line every ten seconds, with amount, rate and time left.
func TestLines(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	m := New(Options{Writer: &out, Verb: "exported", Unit: "objects", Now: func() time.Time { return now }})
	for second := range 31 {
		now = time.Unix(int64(second), 0)
		m.Set(int64(second*100), 4000)
	}
	m.Print("a: damaged")
	now = now.Add(time.Minute)
	m.Set(5000, 4000) // more than there were
	now = now.Add(time.Minute)
	m.Set(5100, 0) // nobody knows how many there are
	m.End()
	want := "exported 1000 of 4000 objects, 100/s, 30s left\n" +
		"exported 2000 of 4000 objects, 100/s, 20s left\n" +
		"exported 3000 of 4000 objects, 100/s, 10s left\n" +
		"a: damaged\n" +
		"exported 5000 of 5000 objects, 56/s\n" +
		"exported 5100 objects, 34/s\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestBar: on a terminal there is a bar, which is gone at the end.
func TestBar(t *testing.T) {
	var out bytes.Buffer
	m := New(Options{Writer: &out, Verb: "exported", Unit: "objects", Terminal: true})
	m.Set(1, 4)
	time.Sleep(150 * time.Millisecond) // it is not drawn more often than ten times a second
	m.Set(2, 4)
	m.End()
	for _, want := range []string{"exported", "50%", "(2/4", "objects/s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the bar has no %q: %q", want, out.String())
		}
	}
	if end := out.String()[strings.LastIndex(out.String(), "%"):]; !strings.Contains(end, "\r") {
		t.Errorf("the bar stays: %q", out.String())
	}
}

// TestQuiet: nothing is shown.
func TestQuiet(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	m := New(Options{Writer: &out, Quiet: true, Terminal: true, Now: func() time.Time { return now }})
	now = now.Add(time.Hour)
	m.Set(1, 4)
	m.End()
	if out.Len() > 0 {
		t.Errorf("got %q", out.String())
	}
}
