package section

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

var cutter = NewCutter([]byte("secret"))

func noise(size int, seed byte) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// cut returns the parts of a section, and their data by name.
func cut(c *Cutter, data []byte) (parts []Part, byName map[string][]byte) {
	parts, byName = c.Parts("body", data, Append), map[string][]byte{}
	for _, p := range parts {
		byName[p.Name] = p.Data
	}
	return parts, byName
}

func TestChunks(t *testing.T) {
	long := noise(1<<20, 1)
	for name, test := range map[string]struct {
		data     []byte
		min, max int // number of parts
	}{
		"empty":               {nil, 1, 1},
		"short":               {long[:minCut], 1, 1},
		"a byte too long":     {long[:minCut+1], 2, 8},
		"long":                {long, 1 + 1<<20/maxChunk, 1 + 1<<20/minChunk},
		"one byte, repeated":  {bytes.Repeat([]byte{'a'}, 1<<20), 2, 3}, // all but the last chunk are the same
		"long, in one string": {bytes.Repeat(long[:minCut], 4), 2, 30},
	} {
		parts, byName := cut(cutter, test.data)
		if len(parts) < test.min || len(parts) > test.max || len(byName) != len(parts) || parts[0].Name != "body" {
			t.Errorf("%s: %d parts, the first is %s, want %d to %d", name, len(parts), parts[0].Name, test.min, test.max)
		}
		size := 0
		for _, p := range parts {
			size += Size(p.Data)
			if Owner(p.Name) != "body" {
				t.Errorf("%s: %s belongs to %s", name, p.Name, Owner(p.Name))
			}
		}
		if size > len(test.data) {
			t.Errorf("%s: the parts say that they have %d bytes of %d", name, size, len(test.data))
		}
		joined, err := Join(nil, "body", parts[0].Data, func(name string) []byte { return byName[name] })
		if err != nil || !bytes.Equal(joined, test.data) {
			t.Errorf("%s: joined to %d bytes of %d, %v", name, len(joined), len(test.data), err)
		}
	}
	if parts := (*Cutter)(nil).Parts("body", long, Append); len(parts) != 1 {
		t.Errorf("%d parts where nothing is to be cut", len(parts))
	}
}

// TestChunksStay: a change replaces the chunks around it, and moves the places
// of the others.
func TestChunksStay(t *testing.T) {
	long := noise(1<<20, 2)
	_, before := cut(cutter, long)
	for name, after := range map[string][]byte{
		"a byte more":     slices.Concat(long[:1<<19], []byte{'x'}, long[1<<19:]),
		"a byte less":     slices.Concat(long[:100], long[101:]),
		"another byte":    slices.Concat(long[:1000], []byte{^long[1000]}, long[1001:]),
		"more at the end": slices.Concat(long, []byte("more")),
	} {
		replaced, size := 0, 0
		parts, _ := cut(cutter, after)
		for _, p := range parts[1:] {
			if before[p.Name] == nil {
				replaced++
				size += Size(p.Data)
			}
		}
		if replaced < 1 || size > 4*maxChunk {
			t.Errorf("%s: %d chunks of %d bytes are new", name, replaced, size)
		}
	}
	// Where another store cuts is no help.
	parts, _ := cut(NewCutter([]byte("another secret")), long)
	for _, p := range parts[1 : len(parts)-1] {
		if before[p.Name] != nil {
			t.Errorf("stores with other secrets have %s in common", p.Name)
		}
	}
}

func TestJoinMalformed(t *testing.T) {
	parts, byName := cut(cutter, noise(100<<10, 3))
	list := parts[0].Data
	for name, encoded := range map[string][]byte{
		"no list":          []byte("0:l"),
		"another checksum": slices.Concat(list[:3], []byte{^list[3]}, list[4:]),
		"cut short":        list[:len(list)-1],
		"with a size":      append([]byte{'1'}, list...),
	} {
		if _, err := Join(nil, "body", encoded, func(name string) []byte { return byName[name] }); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, p := range parts[1:] {
		joined, err := Join(nil, "body", list, func(name string) []byte {
			if name == p.Name {
				return nil
			}
			return byName[name]
		})
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("without %s: %d bytes, %v", p.Name, len(joined), err)
		}
	}
	if _, err := Decode(list); !errors.Is(err, ErrMalformed) {
		t.Errorf("a list alone: %v", err)
	}
}
