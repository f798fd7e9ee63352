package storagetest

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tallyman/storage"
)

// noise returns size random letters.
func noise(random *rand.Rand, size int) string {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte('0' + random.IntN(64))
	}
	return string(data)
}

// testLongValues: values that are long enough to be stored in pieces are read whole, at
// each revision and in each change, also after later changes.
func testLongValues(t *testing.T, b storage.Backend) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // test data
	start, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	long := noise(random, 200<<10)
	bodies := []string{
		long, long + "more", long[:100] + "inserted" + long[100:], long[:1<<16] + long[1<<17:], strings.Repeat(long[:1<<16], 4),
		"short", long, "", strings.Repeat("a", 1<<18), long[1:],
	}
	var revisions []int64
	last := int64(0)
	for i, text := range bodies {
		m := storage.Mutation{Key: "/a", Expect: last, Value: storage.Value{{Name: "body", Data: []byte(text)}}}
		if i == 2 {
			m.Value = append(m.Value, storage.Section{Name: "cells", Data: []byte(noise(random, 50<<10))})
		}
		last = commit(t, b, m).Revision
		revisions = append(revisions, last)
		if e, _, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{}); err != nil || e.Err != nil || body(e) != text {
			t.Fatalf("body %d is read as %d bytes of %d, %v", i, len(body(e)), len(text), err)
		}
		if stats := historyOf(t, b); text == "short" && stats.Bytes != int64(len(text)+50<<10) {
			t.Errorf("%d bytes are stored, want those of the present sections", stats.Bytes)
		}
	}
	removed := remove(t, b, "/a", last)
	check := func(from int) {
		t.Helper()
		for i := from; i < len(bodies); i++ {
			r := scan(t, b, storage.ScanRequest{From: "/", To: "0", Revision: revisions[i]})
			if len(r.Entries) != 1 || r.Entries[0].Err != nil || body(&r.Entries[0]) != bodies[i] || (len(r.Entries[0].Value.Section("cells")) == 50<<10) != (i >= 2) {
				t.Errorf("at revision %d: %d entries, want body %d", revisions[i], len(r.Entries), i)
			}
		}
		after := start.Current
		if from > 0 {
			after = revisions[from-1]
		}
		changes, err := b.Log(t.Context(), storage.LogRequest{After: after, Limit: 100})
		for len(changes) > 0 && err == nil && changes[len(changes)-1].Revision < removed {
			var more []storage.Change
			more, err = b.Log(t.Context(), storage.LogRequest{After: changes[len(changes)-1].Revision, Limit: 100})
			changes = append(changes, more...)
		}
		if err != nil || len(changes) != len(bodies)-from+1 {
			t.Fatalf("%d changes, %v", len(changes), err)
		}
		for i, c := range changes {
			want := append(slices.Clone(bodies[from:]), "")[i]
			before := ""
			if from+i > 0 {
				before = bodies[from+i-1]
			}
			if body(c.Current) != want || body(c.Previous) != before {
				t.Errorf("change %d: from %d bytes to %d, want %d to %d", from+i, len(body(c.Previous)), len(body(c.Current)), len(before), len(want))
			}
		}
	}
	check(0)
	if err := b.Compact(t.Context(), revisions[3]); err != nil {
		t.Fatal(err)
	}
	check(4)
	if e, _, err := storage.GetEntry(t.Context(), b, "/a", storage.Read{}); err != nil || e != nil {
		t.Errorf("the deleted key: %+v, %v", e, err)
	}
	if commit(t, b, putOf("/a", "again", 0)); body(mustGet(t, b, "/a")) != "again" {
		t.Error("the key cannot be used again")
	}
}

func mustGet(t *testing.T, b storage.Backend, key string) *storage.Entry {
	t.Helper()
	e, _, err := storage.GetEntry(t.Context(), b, key, storage.Read{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// RunLongHistory tests that an update of a long value adds the changed parts to the history,
// and little more.
func RunLongHistory(t *testing.T, open OpenBounded) {
	const size, updates, most = 1 << 20, 50, 64 << 10
	s := newBounded(open).start(t, storage.HistoryBounds{MinAge: time.Hour})
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // test data
	value := noise(random, size)
	revision := put(t, s, "/a", value, 0)
	before := historyOf(t, s)
	if stored := before.StoredBytes; stored > size+size/4 || before.Bytes != size {
		t.Errorf("%d bytes are %d, stored in %d", size, before.Bytes, stored)
	}
	for range updates {
		at := random.IntN(size)
		value = value[:at] + "changed" + value[at:]
		revision = put(t, s, "/a", value, revision)
	}
	after := historyOf(t, s)
	if kept := (after.LogBytes - before.LogBytes) / updates; kept > most || after.LogEntries-before.LogEntries != updates {
		t.Errorf("the history has %d bytes of each of %d updates of a value of %d bytes", kept, after.LogEntries-before.LogEntries, size)
	} else {
		t.Logf("%d bytes in the history for each update of a value of %d bytes", kept, size)
	}
	if got := body(mustGet(t, s, "/a")); got != value {
		t.Errorf("the value is %d bytes, want %d", len(got), len(value))
	}
}
