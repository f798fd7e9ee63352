package encoding

import (
	"bytes"
	"testing"
)

// TestBrief: a Brief has the metadata of the object, with any resourceVersion, and the addition.
func TestBrief(t *testing.T) {
	for name, data := range map[string]string{
		"one field":    `{"kind":"K","apiVersion":"v1","metadata":{"name":"a"},"spec":{"metadata":{}}}`,
		"no metadata":  `{"kind":"K","apiVersion":"v1","metadata":{},"spec":1}`,
		"more fields":  `{"kind":"K","apiVersion":"v1","metadata":{"name":"a","uid":"u","labels":{"x":"}\\"{"}},"spec":1}`,
		"with newline": `{"kind":"K","apiVersion":"v1","metadata":{"name":"a"}}` + "\n",
	} {
		stored, ok := AppendBrief([]byte("kept"), "1", []byte(data), []byte("extra"))
		if !ok || !bytes.HasPrefix(stored, []byte("kept")) {
			t.Fatalf("%s: %q", name, stored)
		}
		stored = stored[len("kept"):]
		b, ok := ParseBrief(stored, "1")
		if !ok || string(b.Extra) != "extra" {
			t.Fatalf("%s: %q became %+v", name, stored, b)
		}
		whole, _ := NewSplicer([]byte(data))
		head, ok := NewSplicer(b.Head)
		if got, want := head.AppendMetadataTo(nil, 7), whole.AppendMetadataTo(nil, 7); !ok || !bytes.Equal(got, want) {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if _, ok := ParseBrief(stored, "2"); ok {
			t.Errorf("%s: another version is taken", name)
		}
		if other, _ := AppendBrief(nil, "1", append([]byte(data), ' '), []byte("extra")); bytes.Equal(other, stored) {
			t.Errorf("%s: another object has the same one", name)
		}
	}
	if _, ok := AppendBrief(nil, "1", []byte(`{"metadata":{}}`), nil); ok {
		t.Error("something that is no object has one")
	}
}

// FuzzParseBrief: no bytes make it panic, and the parts are of the bytes.
func FuzzParseBrief(f *testing.F) {
	f.Add([]byte("1\n0\n2\n{}[]"))
	f.Add([]byte("1\n0\n-2\n{}[]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, ok := ParseBrief(data, "1"); ok && !bytes.HasSuffix(data, append(bytes.Clone(b.Head), b.Extra...)) {
			t.Errorf("%q became %+v", data, b)
		}
	})
}
