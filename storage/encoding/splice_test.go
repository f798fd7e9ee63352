package encoding

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzSplicer: no bytes make it panic; and if the Splicer takes them and they are JSON, the
// answer is that JSON with the resourceVersion in its metadata.
func FuzzSplicer(f *testing.F) {
	f.Add([]byte(`{"kind":"K","apiVersion":"v1","metadata":{"name":"a","uid":"u","labels":{"a":"b"}}}`))
	f.Add([]byte(`{"kind":"K","apiVersion":"v1","metadata":{}}` + "\n"))
	f.Add([]byte(`{"kind":"K","apiVersion":"v1","metadata":{"name":"\"}`))
	f.Add([]byte(`{"kind":"K","apiVersion":"v1","metadata":{"name":"a",}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := NewSplicer(data)
		if !ok {
			return
		}
		whole, item := s.AppendTo(nil, 7), s.AppendItemTo(nil, 7)
		if !json.Valid(data) || strings.Contains(string(data), "resourceVersion") {
			return
		}
		for _, answer := range [][]byte{whole, item} {
			var got struct {
				Metadata struct {
					ResourceVersion string `json:"resourceVersion"`
				} `json:"metadata"`
			}
			if err := json.Unmarshal(answer, &got); err != nil {
				t.Fatalf("%s became %s: %v", data, answer, err)
			}
			if strings.Count(string(data), "metadata") == 1 && got.Metadata.ResourceVersion != "7" {
				t.Fatalf("%s became %s", data, answer)
			}
		}
		if len(whole) > s.Size() {
			t.Fatalf("%d bytes, size says %d", len(whole), s.Size())
		}
	})
}
