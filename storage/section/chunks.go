package section

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"strings"
)

// A long section is stored in chunks, so that a change of it replaces a few of them, and
// the history of a store keeps no more than those. The section itself is a list of the
// digests of its chunks then: "0:l<CRC-32C of the rest><digests>".
//
// The content decides where a chunk ends, by the rolling hash "gear": an insertion moves
// the chunks after it and leaves them as they are.
// Reference: https://www.usenix.org/conference/atc16/technical-sessions/presentation/xia
const (
	minCut   = 24 << 10 // a shorter section is stored as a whole
	minChunk = 4 << 10
	maxChunk = 32 << 10
	endBits  = 13 // a chunk has about 1<<endBits bytes besides minChunk

	codecList    = 'l'
	digestSize   = 20
	chunkDivider = "~" // in the name of a chunk: section, divider, digest
)

// Part is a section as it is stored, or a chunk of one.
type Part struct {
	Name string
	Data []byte
}

// Owner returns the name of the section that a part belongs to.
func Owner(part string) string {
	name, _, _ := strings.Cut(part, chunkDivider)
	return name
}

// Cutter cuts sections into chunks. Nil cuts none.
type Cutter struct{ gear [256]uint64 }

// NewCutter returns the Cutter of a store. The places of its cuts follow from secret,
// which the store keeps: a client that knew them could write content that has none, and
// of which an insertion would replace everything.
func NewCutter(secret []byte) *Cutter {
	random, c := rand.NewChaCha8(sha256.Sum256(secret)), &Cutter{}
	for i := range c.gear {
		c.gear[i] = random.Uint64()
	}
	return c
}

// Parts returns the parts in which the section called name is stored: itself first, and
// its chunks. encode appends the encoded form of data, as Append does.
func (c *Cutter) Parts(name string, data []byte, encode func(dst, data []byte) []byte) []Part {
	if c == nil || len(data) <= minCut {
		return []Part{{name, encode(nil, data)}}
	}
	parts, digests, seen := []Part{{Name: name}}, []byte{}, map[string]bool{}
	for len(data) > 0 {
		end := c.cut(data)
		sum := sha256.Sum256(data[:end])
		digests = append(digests, sum[:digestSize]...)
		if chunk := chunkName(name, sum[:digestSize]); !seen[chunk] {
			seen[chunk] = true
			parts = append(parts, Part{chunk, encode(nil, data[:end])})
		}
		data = data[end:]
	}
	parts[0].Data = slices.Concat([]byte{'0', ':', codecList}, binary.BigEndian.AppendUint32(nil, crc32.Checksum(digests, castagnoli)), digests)
	return parts
}

// cut returns the end of the first chunk of data.
func (c *Cutter) cut(data []byte) int {
	if len(data) <= minChunk {
		return len(data)
	}
	end := min(len(data), maxChunk)
	var hash uint64
	for i := minChunk - 64; i < end; i++ { // of 64 bytes, the hash forgets what is before
		hash = hash<<1 + c.gear[data[i]]
		if i >= minChunk && hash>>(64-endBits) == 0 {
			return i + 1
		}
	}
	return end
}

func chunkName(section string, digest []byte) string {
	return section + chunkDivider + base64.RawURLEncoding.EncodeToString(digest)
}

// Join is AppendDecoded for a section that may be in chunks. part returns an encoded part by its
// name, nil if it is missing.
func Join(dst []byte, name string, encoded []byte, part func(name string) []byte) ([]byte, error) {
	size, body, ok := split(encoded)
	if !ok || body[0] != codecList {
		return AppendDecoded(dst, encoded)
	}
	if size != 0 || len(body) < 5 || binary.BigEndian.Uint32(body[1:]) != crc32.Checksum(body[5:], castagnoli) || len(body[5:])%digestSize != 0 {
		return nil, ErrMalformed
	}
	start := len(dst)
	for digests := body[5:]; len(digests) > 0; digests = digests[digestSize:] {
		var err error
		if dst, err = AppendDecoded(dst, part(chunkName(name, digests[:digestSize]))); err != nil || len(dst)-start > maxSize {
			return nil, ErrMalformed
		}
	}
	return dst, nil
}
