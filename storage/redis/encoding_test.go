package redis

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestEncoding: what is encoded is decoded again, small, large, and such that it
// does not compress.
func TestEncoding(t *testing.T) {
	noise := make([]byte, 10_000)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(noise)
	for name, value := range map[string][]byte{
		"empty": {}, "small": []byte("{}"), "colons": []byte("1:2:z3"), "noise": noise, "text": bytes.Repeat([]byte("layer "), 10_000),
	} {
		revision, got, err := decode("1765432100000000:" + string(encode(value)))
		if err != nil || revision != 1765432100000000 || !bytes.Equal(got, value) {
			t.Errorf("%s: revision %d, %d bytes of %d, %v", name, revision, len(got), len(value), err)
		}
	}
	if got := encode(bytes.Repeat([]byte("layer "), 10_000)); len(got) > 200 {
		t.Errorf("60 000 repetitive bytes take %d", len(got))
	}
}

// FuzzDecode: what Redis holds is read without a panic, whatever it is.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"", "1:", "1:2:", "1:2:p", "1:2:pab", "x:2:pab", "1:-1:p", "1:99999999999999999999:z", "1:5:z\x28\xb5\x2f\xfd"} {
		f.Add(seed)
	}
	f.Add("7:300:" + string(encode(bytes.Repeat([]byte("x"), 300))[4:]))
	f.Fuzz(func(t *testing.T, stored string) {
		revision, value, err := decode(stored)
		if err == nil && value == nil {
			t.Errorf("%q: revision %d without a value", stored, revision)
		}
	})
}

// FuzzMember: keys and bounds keep their order in the index.
func FuzzMember(f *testing.F) {
	f.Add("/a", "/a/b")
	f.Add("/a\x00", "/a")
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Contains(a, "\x00") || a == "" {
			return
		}
		member := a + "\x00" + "1765432100000000"
		if key, revision, ok := splitMember(member); !ok || key != a || revision != 1765432100000000 {
			t.Errorf("%q became %q, %d, %v", member, key, revision, ok)
		}
		if strings.Contains(strings.TrimSuffix(b, "\x00"), "\x00") {
			return
		}
		if got, want := member >= bound(b), a >= b; got != want {
			t.Errorf("%q is at or after %q: %v, in the index %v", a, b, want, got)
		}
	})
}
