package objects_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage/memory"
	"tallyman/storage/objects"
)

// TestEncodingsOfEvent: an event is decoded once at most, and encoded once in each format, however many
// watches there are. In JSON it is neither.
func TestEncodingsOfEvent(t *testing.T) {
	const watches = 10
	decoded := 0
	s := open(t, objects.Options{
		Backend: memory.New(memory.Options{}), Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
		Decode: func([]byte, runtime.Object) bool {
			decoded++
			return false // the codec decodes
		},
	})
	first := &example.Pod{}
	if err := s.Create(t.Context(), "/pods/first", &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: "first"}}, first, 0); err != nil {
		t.Fatal(err)
	}
	var open []watch.Interface
	for range watches {
		w, err := s.Watch(t.Context(), "/pods/", k8sstorage.ListOptions{Recursive: true, ResourceVersion: first.ResourceVersion, Predicate: k8sstorage.Everything})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Stop()
		open = append(open, w)
	}
	if err := s.Create(t.Context(), "/pods/a", &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, nil, 0); err != nil {
		t.Fatal(err)
	}
	decoded = 0
	encoded := map[runtime.Identifier]int{}
	for _, w := range open {
		object, ok := (<-w.ResultChan()).Object.(runtime.CacheableObject)
		if !ok {
			t.Fatal("an event's object encodes itself anew for each watch")
		}
		for _, format := range []runtime.Identifier{jsonEncoder().Identifier(), "table", "metadata"} {
			var out bytes.Buffer
			err := object.CacheEncode(format, func(obj runtime.Object, w io.Writer) error {
				encoded[format]++
				_, err := fmt.Fprint(w, obj.(runtime.CacheableObject).GetObject().(*example.Pod).Name)
				return err
			}, &out)
			if err != nil || out.Len() == 0 {
				t.Errorf("%s: %q, %v", format, out.String(), err)
			}
		}
	}
	if decoded != 1 || encoded["table"] != 1 || encoded["metadata"] != 1 || len(encoded) != 2 {
		t.Errorf("the event was decoded %d times, and encoded %v", decoded, encoded)
	}
}
