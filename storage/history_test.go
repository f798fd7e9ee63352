package storage

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestHistoryBounds(t *testing.T) {
	now := time.UnixMicro(1e15)
	at := func(age time.Duration) int64 { return now.Add(-age).UnixMicro() }
	bounds := HistoryBounds{MaxBytes: 1000, MinAge: time.Minute, MaxEntries: 10, MaxAge: time.Hour}
	for name, test := range map[string]struct {
		entries, bytes int64
		age            time.Duration
		held           int64
		exceeds        bool
	}{
		"small and young":              {5, 500, time.Second, 0, false},
		"many bytes":                   {5, 1001, time.Second, 0, true},
		"many bytes, held":             {5, 1001, time.Second, 1, true},
		"many entries, too young":      {11, 500, time.Second, 0, false},
		"many entries":                 {11, 500, 2 * time.Minute, 0, true},
		"many entries, held":           {11, 500, 2 * time.Minute, at(3 * time.Minute), false},
		"many entries, held after":     {11, 500, 2 * time.Minute, at(time.Minute), true},
		"old":                          {1, 1, 2 * time.Hour, 0, true},
		"old, held":                    {1, 1, 2 * time.Hour, at(3 * time.Hour), false},
		"of the future":                {5, 500, -24 * time.Hour, 0, false},
		"of the future, many entries":  {11, 500, -24 * time.Hour, 0, true},
		"as many entries as there may": {10, 1000, time.Hour, 0, false},
	} {
		revision := at(test.age)
		if got := bounds.Exceeds(HistorySize{test.entries, test.bytes, revision, revision}, test.held, now); got != test.exceeds {
			t.Errorf("%s: exceeds: %v, want %v", name, got, test.exceeds)
		}
	}
	for _, wrong := range []HistoryBounds{{MaxBytes: -1}, {MinAge: -1}, {MaxEntries: -1}, {MaxAge: -1}} {
		if wrong.Validate() == nil {
			t.Errorf("%+v is valid", wrong)
		}
	}
}

func TestHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var holds Holds
		expect := func(what string, want int64) {
			t.Helper()
			if got := holds.Oldest(); got != want {
				t.Errorf("%s: the oldest is %d, want %d", what, got, want)
			}
		}
		expect("none", 0)
		a, b := holds.Hold(7), holds.Hold(5)
		expect("two", 5)
		b.Release()
		b.Release()
		expect("one released", 7)
		time.Sleep(holdProgress + 1)
		expect("without progress", 0)
		a.Progress()
		expect("it goes on", 7)
		for range int(holdTime / holdProgress) {
			time.Sleep(holdProgress)
			a.Progress()
		}
		expect("for too long", 0)
	})
}
