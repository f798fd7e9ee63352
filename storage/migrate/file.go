package migrate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"tallyman/storage"
)

// fileFormat heads an export. The file is JSON, one value a line: a header, the
// entries in key order, and a footer by which an export that was cut short is
// known.
const fileFormat = "tallyman-metadata/1"

type header struct {
	Format string `json:"format"`
	// Revision of the store that was exported.
	Revision int64 `json:"revision"`
}

type line struct {
	Key      string          `json:"key,omitempty"`
	Revision int64           `json:"revision,omitempty"`
	Value    json.RawMessage `json:"value,omitempty"`
	// Sections are the parts of the value that are not made of it.
	Sections map[string][]byte `json:"sections,omitempty"`
	// Bare reports that the value is stored without a final newline.
	Bare bool `json:"bare,omitempty"`
	// The footer has these, and no key.
	Entries *int64 `json:"entries,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
}

// entry returns the entry of a line.
func (l *line) entry() *storage.Entry {
	value := []byte(l.Value)
	if !l.Bare {
		value = append(value, '\n')
	}
	e := &storage.Entry{Key: l.Key, Value: storage.Body(value)}
	for _, name := range slices.Sorted(maps.Keys(l.Sections)) {
		e.Value = append(e.Value, storage.Section{Name: name, Data: l.Sections[name]})
	}
	return e
}

// Export writes everything in from to w. If the store is in use the entries are
// of a time between the start and the end; the log need not reach back so far.
func Export(ctx context.Context, from Reader, w io.Writer, progress func(*Report)) (*Report, error) {
	c := &copier{Options: Options{Progress: progress}}
	sum := sha256.New()
	out := bufio.NewWriter(io.MultiWriter(w, sum))
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	window, err := from.Window(ctx)
	if err != nil {
		return &c.report, err
	}
	if err := encoder.Encode(header{fileFormat, window.Current}); err != nil {
		return &c.report, err
	}
	next := firstKey
	for {
		page, err := from.Scan(ctx, storage.ScanRequest{From: next, To: lastKey, Limit: pageSize, Count: next == firstKey})
		if err != nil {
			return &c.report, err
		}
		c.report.Total = max(c.report.Total, page.Count)
		for _, e := range page.Entries {
			if isPosition(e.Key) {
				continue
			}
			value, err := bodyOf(&e)
			if err != nil {
				c.report.leaveOut(err)
				continue
			}
			exported := line{Key: e.Key, Revision: e.Revision, Value: value, Bare: !bytes.HasSuffix(value, []byte("\n"))}
			for _, s := range others(&e) {
				if exported.Sections == nil {
					exported.Sections = map[string][]byte{}
				}
				exported.Sections[s.Name] = s.Data
			}
			if err := encoder.Encode(exported); err != nil {
				return &c.report, fmt.Errorf("export %s: %w", e.Key, err)
			}
			c.report.Same.Add(1)
		}
		c.show(!page.More)
		if !page.More {
			break
		}
		next = page.Entries[len(page.Entries)-1].Key + "\x00"
	}
	if err := out.Flush(); err != nil {
		return &c.report, err
	}
	entries := c.report.Same.Load()
	if err := encoder.Encode(line{Entries: &entries, SHA256: fmt.Sprintf("%x", sum.Sum(nil))}); err != nil {
		return &c.report, err
	}
	return &c.report, out.Flush()
}

// Import brings an export into o.To. It reads the file twice: once to see that it is
// whole, so that nothing is imported of one that is not. Of o, From, Name and Follow do not matter.
func Import(ctx context.Context, file io.ReadSeeker, o Options) (*Report, error) {
	c := &copier{Options: o}
	head, err := readFile(file, func(*line) error {
		c.report.Total++
		return nil
	})
	if err != nil {
		return &c.report, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return &c.report, err
	}
	if err := o.To.Advance(ctx, head.Revision); err != nil {
		return &c.report, err
	}
	err = inPages(file, func(page []storage.Entry) error {
		err := c.putAll(ctx, page)
		c.show(false)
		return err
	})
	c.show(true)
	return &c.report, err
}

// CompareFile is Compare for an export.
func CompareFile(ctx context.Context, file io.ReadSeeker, to storage.Backend, merge Merge, report *Report) error {
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return inPages(file, func(page []storage.Entry) error { return comparePage(ctx, page, to, merge, report) })
}

// inPages calls fn with the entries of an export, many at a time. fn must not keep them.
func inPages(file io.Reader, fn func([]storage.Entry) error) error {
	var page []storage.Entry
	size := 0
	flush := func() error {
		err := fn(page)
		page, size = page[:0], 0
		return err
	}
	_, err := readFile(file, func(l *line) error {
		e := l.entry()
		page, size = append(page, *e), size+e.Value.Size()
		if len(page) < pageSize && size < storage.MaxPageBytes {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// maxLine bounds one entry of an export.
const maxLine = 64 << 20

// readFile calls fn with each entry, and fails unless the file is whole.
func readFile(file io.Reader, fn func(*line) error) (*header, error) {
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, maxLine)
	sum := sha256.New()
	head := &header{}
	if !scanner.Scan() {
		return nil, errors.Join(errors.New("the file is empty: want an export"), scanner.Err())
	}
	if err := json.Unmarshal(scanner.Bytes(), head); err != nil || head.Format != fileFormat {
		return nil, fmt.Errorf("line 1: the file is not an export: want format %q", fileFormat)
	}
	add(sum, scanner.Bytes())
	entries := int64(0)
	for number := 2; scanner.Scan(); number++ {
		l := &line{}
		if err := json.Unmarshal(scanner.Bytes(), l); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if l.Entries != nil {
			return head, checkEnd(l, entries, fmt.Sprintf("%x", sum.Sum(nil)), scanner.Scan())
		}
		if l.Key == "" || len(l.Value) == 0 {
			return nil, fmt.Errorf("line %d: want a key and a value", number)
		}
		add(sum, scanner.Bytes())
		entries++
		if err := fn(l); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("the file is cut short after %d entries", entries)
}

func add(sum hash.Hash, text []byte) {
	sum.Write(text)
	sum.Write([]byte{'\n'})
}

func checkEnd(footer *line, entries int64, sum string, more bool) error {
	switch {
	case more:
		return errors.New("the file goes on after its end")
	case *footer.Entries != entries:
		return fmt.Errorf("the file has %d entries, its end says %d", entries, *footer.Entries)
	case footer.SHA256 != sum:
		return errors.New("the file's checksum is not the one at its end: it was changed or damaged")
	}
	return nil
}
