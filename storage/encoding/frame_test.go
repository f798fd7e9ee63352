package encoding

import "testing"

// TestCBORLength compares with RFC 8949, appendix A and section 3.1.
func TestCBORLength(t *testing.T) {
	for n, want := range map[int]string{
		0: "\x80", 23: "\x97", 24: "\x98\x18", 255: "\x98\xff", 256: "\x99\x01\x00", 65535: "\x99\xff\xff", 65536: "\x9a\x00\x01\x00\x00",
	} {
		if got := string(appendCBORLength(nil, n)); got != want {
			t.Errorf("the head of an array of %d items is %x, want %x", n, got, want)
		}
	}
}

// TestFrameWithoutPlace refuses an empty list that it does not understand.
func TestFrameWithoutPlace(t *testing.T) {
	for _, format := range []Format{JSON, IndentedJSON, YAML, CBOR, Protobuf} {
		for _, empty := range []string{"", "{}", "null\n", "k8s\x00", "k8s\x00\xff"} {
			if head, tail, ok := format.frame([]byte(empty), 1, 1); ok && (format != Protobuf || empty != "k8s\x00") {
				t.Errorf("format %d: %q is framed by %q and %q", format, empty, head, tail)
			}
		}
	}
}
