package bolt

import (
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"tallyman/storage"
	"tallyman/storage/section"
)

// TestSameBody: a body that format 3 has stored, and that is put again, stays as it is: the brief of it is
// not older. Another body is stored as of this format, with the former one in the history.
func TestSameBody(t *testing.T) {
	body, brief := []byte(strings.Repeat("a body ", 100)), []byte("a brief")
	stored := (&record{revision: 7, parts: []part{
		{storage.SectionBody, 5, section.Append(nil, body)}, {storage.SectionBrief, 5, section.AppendUncompressed(nil, brief)},
	}}).encode()
	fresh := &storage.Read{Fresh: true}
	for name, test := range map[string]struct {
		body     string
		moved    int
		hasBrief bool
	}{
		"the same body": {string(body), 0, true},
		"another body":  {strings.ToUpper(string(body)), 1, false},
	} {
		after, moved := decodeRecord(stored).put(&storage.Mutation{Key: "/a", Value: storage.Value{{Name: storage.SectionBody, Data: []byte(test.body)}, {Name: storage.SectionBrief, Data: brief}}}, 9, nil)
		e := decodeRecord(after.encode()).entry("/a", fresh, nil)
		if len(moved) != test.moved || e.Err != nil || string(e.Value.Body()) != test.body || e.Value.Section(storage.SectionBrief) != nil != test.hasBrief {
			t.Errorf("%s: %d parts moved, the entry is %+v", name, len(moved), e)
		}
	}
}

// TestTooManyParts: a record that names more parts than it has is damaged, and takes no memory for them.
func TestTooManyParts(t *testing.T) {
	r := decodeRecord([]byte{recordMark, 0, 0, 0, 0, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 'a'})
	if r == nil || !r.damaged || r.revision != 9 {
		t.Errorf("the record is %+v", r)
	}
}

// TestScanIntoMemoryAllocates: a page that is read into the memory of the one before takes no memory for values.
func TestScanIntoMemoryAllocates(t *testing.T) {
	const entries, size = 50, 10 << 10
	s, err := Open(Options{Path: filepath.Join(t.TempDir(), "images.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for n := range entries {
		body := []byte(strings.Repeat(fmt.Sprintf("%05d", n), size/5))
		if _, err := s.Commit(t.Context(), storage.Mutation{Key: fmt.Sprintf("/%03d", n), Value: storage.Body(body)}); err != nil {
			t.Fatal(err)
		}
	}
	memory := &storage.Memory{}
	ctx := storage.WithMemory(t.Context(), memory)
	scan := func() {
		memory.Reset()
		r, err := s.Scan(ctx, storage.ScanRequest{From: "/", To: "0", Read: storage.Read{Sections: []string{storage.SectionBody}}})
		if err != nil || len(r.Entries) != entries || r.Entries[entries-1].Value.Size() != size {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	for range 5 { // the memory grows
		scan()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		scan()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 20 / entries; each > 1000 {
		t.Errorf("an entry of %d bytes takes %d bytes", size, each)
	}
}
