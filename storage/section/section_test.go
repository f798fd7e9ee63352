package section

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	for _, data := range []string{"", "a", "\x00\xff:", strings.Repeat("compressible ", 100), strings.Repeat("x", minCompress-1)} {
		encoded := Append(nil, []byte(data))
		decoded, err := Decode(encoded)
		if err != nil || string(decoded) != data || Size(encoded) != len(data) {
			t.Errorf("%.20q became %.20q of size %d, %v", data, decoded, Size(encoded), err)
		}
		if len(data) > minCompress && len(encoded) > len(data)/2 {
			t.Errorf("%d bytes are encoded in %d", len(data), len(encoded))
		}
		plain := AppendUncompressed(nil, []byte(data))
		if decoded, err := Decode(plain); err != nil || string(decoded) != data || !bytes.HasSuffix(plain, []byte(data)) {
			t.Errorf("%.20q became %.20q uncompressed, %v", data, decoded, err)
		}
		for i := range encoded { // every flipped bit is noticed
			broken := bytes.Clone(encoded)
			broken[i] ^= 1
			if decoded, err := Decode(broken); err == nil && string(decoded) != data || err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("%.20q with a flipped bit in byte %d decodes to %.20q, %v", data, i, decoded, err)
			}
		}
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
	f.Fuzz(func(t *testing.T, encoded []byte) {
		data, err := Decode(encoded)
		if err != nil {
			return
		}
		if again, err := Decode(Append(nil, data)); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q: %q, %v", data, again, err)
		}
	})
}
