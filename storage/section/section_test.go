package section

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// encodings are the ways to encode a section.
var encodings = map[string]func(dst, data []byte) []byte{"zstd": Append, "S2": AppendFast, "uncompressed": AppendUncompressed}

func TestRoundTrip(t *testing.T) {
	for _, data := range []string{"", "a", "\x00\xff:", strings.Repeat("compressible ", 100), strings.Repeat("x", minCompress-1)} {
		for name, encode := range encodings {
			encoded := encode([]byte("kept"), []byte(data))[len("kept"):]
			decoded, err := Decode(encoded)
			if err != nil || string(decoded) != data || Size(encoded) != len(data) {
				t.Errorf("%s: %.20q became %.20q of size %d, %v", name, data, decoded, Size(encoded), err)
			}
			if name != "uncompressed" && len(data) > minCompress && len(encoded) > len(data)/2 {
				t.Errorf("%s: %d bytes are encoded in %d", name, len(data), len(encoded))
			}
			memory := make([]byte, 2, 2+len(data))
			if decoded, err := AppendDecoded(memory, encoded); err != nil || string(decoded[2:]) != data || &decoded[0] != &memory[0] {
				t.Errorf("%s: %.20q is not decoded into the memory that is there: %v", name, data, err)
			}
			for i := range encoded { // every flipped bit is noticed
				broken := bytes.Clone(encoded)
				broken[i] ^= 1
				if decoded, err := Decode(broken); err == nil && string(decoded) != data || err != nil && !errors.Is(err, ErrMalformed) {
					t.Errorf("%s: %.20q with a flipped bit in byte %d decodes to %.20q, %v", name, data, i, decoded, err)
				}
			}
			for other, encode := range encodings {
				if !Equal(encoded, encode(nil, []byte(data))) || Equal(encoded, encode(nil, []byte(data+"x"))) || Equal(encoded, encode(nil, []byte("y" + data)[:len(data)])) != (data == "" || data == strings.Repeat("y", len(data))) {
					t.Errorf("%.20q by %s is not compared with one by %s", data, name, other)
				}
			}
		}
	}
	if Equal([]byte("damaged"), []byte("lost")) || !Equal([]byte("damaged"), []byte("damaged")) || Equal([]byte("1:s"), []byte("1:z")) {
		t.Error("bytes that are no sections are not compared as bytes")
	}
}

// TestFormat1: versions of format 1 know two codecs.
func TestFormat1(t *testing.T) {
	noise := make([]byte, 4*minCompress)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise)
	for data, codec := range map[string]byte{"": 'p', "old": 'p', strings.Repeat("compressible ", 100): 'z', string(noise): 'p'} {
		encoded := AppendFormat1(nil, []byte(data))
		decoded, err := Decode(encoded)
		if _, body, _ := split(encoded); err != nil || string(decoded) != data || body[0] != codec {
			t.Errorf("%.20q became %.20q by codec %c, %v", data, decoded, body[0], err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("5:chello"))
	f.Add(Append(nil, []byte("a")))
	f.Add(Append(nil, bytes.Repeat([]byte("ab"), 200)))
	f.Add(AppendFast(nil, bytes.Repeat([]byte("ab"), 200)))
	f.Fuzz(func(t *testing.T, encoded []byte) {
		data, err := Decode(encoded)
		if err != nil {
			return
		}
		for name, encode := range encodings {
			if again, err := Decode(encode(nil, data)); err != nil || !bytes.Equal(again, data) {
				t.Errorf("%s: %q: %q, %v", name, data, again, err)
			}
		}
	})
}
