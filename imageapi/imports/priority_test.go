package imports

import (
	"strings"
	"testing"
)

func TestSortTags(t *testing.T) {
	for tags, want := range map[string]string{
		"v1 other v2 3 3.1 abc":      "3.1 3 abc other v1 v2",
		"b latest a":                 "latest a b",
		"1.9 1.10 v1.11":             "v1.11 1.10 1.9",
		"1.0.0 2.0.0-rc1 2.0.0 10":   "10 2.0.0 2.0.0-rc1 1.0.0",
		"1.0-alpine latest 1.0 edge": "latest 1.0 1.0-alpine edge",
	} {
		got := strings.Fields(tags)
		if SortTags(got); strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", tags, got, want)
		}
	}
}
