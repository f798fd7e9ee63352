package doctor

import (
	"strings"
	"testing"
	"time"

	"tallyman/imageapi/records"
)

func TestJudgeResync(t *testing.T) {
	now := time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)
	day := 24 * time.Hour
	for name, test := range map[string]struct {
		state   records.ResyncState
		period  time.Duration
		want    Status
		message string
	}{
		"done":            {records.ResyncState{Started: now, Finished: now, Recorded: 2, Removed: 1}, day, OK, "2 recorded, 1 removed, 0 missing"},
		"at work":         {records.ResyncState{Started: now}, day, OK, "is being compared"},
		"removals wait":   {records.ResyncState{Started: now, Finished: now, Blocked: true, Missing: 40, Records: 50}, day, Failed, "lacks 40 of 50"},
		"failures":        {records.ResyncState{Started: now, Finished: now, Failed: 3}, day, Warning, "3 manifests or tags"},
		"long ago":        {records.ResyncState{Started: now.Add(-3 * day), Finished: now.Add(-3 * day)}, day, Warning, "last compared with its records on 2026-01-07"},
		"never, as it is": {records.ResyncState{Started: now.Add(-3 * day), Finished: now.Add(-3 * day)}, 0, OK, "was compared"},
	} {
		r := &report{}
		judgeResync(r, &test.state, test.period, now)
		if len(r.findings) != 1 || r.findings[0].Status != test.want || !strings.Contains(r.findings[0].Message, test.message) {
			t.Errorf("%s: %+v, want %s %q", name, r.findings, test.want, test.message)
		}
	}
}
