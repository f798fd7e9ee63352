package objects_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage/memory"
	"tallyman/storage/objects"
)

// writeList returns the bytes of a list, and whether it failed, before or after its first bytes.
func writeList(t *testing.T, s *objects.Store, answer *objects.ListAnswer, predicate k8sstorage.SelectionPredicate) (content []byte, aborted bool) {
	t.Helper()
	list, err := s.ListEncoded(t.Context(), "/pods/", k8sstorage.ListOptions{Recursive: true, Predicate: predicate}, *answer, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if reason := recover(); reason != nil {
			err, ok := reason.(error)
			if !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(reason)
			}
			aborted = true
		}
	}()
	var written bytes.Buffer
	err = list.CacheEncode(answer.Encoder, nil, &written)
	return written.Bytes(), err != nil
}

// TestSizesInBrief: a long list in protobuf is measured by the sizes that are stored beside objects, if all
// have one, and encoded once. After a wrong one, lists are encoded to be measured.
func TestSizesInBrief(t *testing.T) {
	const pods = 150
	everything := k8sstorage.SelectionPredicate{Label: labels.Everything(), Field: fields.Everything(), GetAttrs: podAttributes}
	pages := everything
	pages.Limit = 100
	for name, test := range map[string]struct {
		predicate k8sstorage.SelectionPredicate
		stored    func(pod *example.Pod, size int) string // beside a pod
		aborts    bool
		encoded   [2]int // how often items are encoded, by each of two lists
	}{
		"right":     {everything, func(_ *example.Pod, size int) string { return strconv.Itoa(size) }, false, [2]int{pods, pods}},
		"in a page": {pages, func(_ *example.Pod, size int) string { return strconv.Itoa(size) }, false, [2]int{100, 100}},
		"one lacks it": {everything, func(pod *example.Pod, size int) string {
			if pod.Name == "p149" {
				return "-"
			}
			return strconv.Itoa(size)
		}, false, [2]int{pods, pods}},
		"wrong": {everything, func(pod *example.Pod, size int) string {
			if pod.Name == "p149" {
				size++
			}
			return strconv.Itoa(size)
		}, true, [2]int{pods, pods}},
	} {
		t.Run(name, func(t *testing.T) {
			answer, encoded := listAnswers()["protobuf"].ListAnswer, 0
			ordinary := answer
			item := answer.Item
			answer.Item = func(dst []byte, e *objects.Encoded) ([]byte, error) {
				encoded++
				return item(dst, e)
			}
			answer.Size = func(e *objects.Encoded) (int, bool) {
				size, err := strconv.Atoi(string(e.Extra()))
				_, revision := e.Stored()
				return size + len(fmt.Sprint(revision)), err == nil
			}
			s := open(t, objects.Options{
				Backend: memory.New(memory.Options{}), Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
				Brief: &objects.Brief{Version: "1", Of: func(obj runtime.Object, _ []byte) ([]byte, error) {
					pod := obj.(*example.Pod)
					return []byte(test.stored(pod, messageSize(t, pod))), nil
				}},
			})
			for n := range pods {
				pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%03d", n)}}
				if err := s.Create(t.Context(), "/pods/"+pod.Name, pod, nil, 0); err != nil {
					t.Fatal(err)
				}
			}
			want, _ := writeList(t, s, &ordinary, test.predicate)
			for n := range 2 {
				encoded = 0
				got, aborted := writeList(t, s, &answer, test.predicate)
				if aborted != (test.aborts && n == 0) || !aborted && !bytes.Equal(got, want) {
					t.Errorf("list %d: aborted %t, %d bytes, want %d", n, aborted, len(got), len(want))
				}
				if encoded != test.encoded[n] {
					t.Errorf("list %d: %d items were encoded, want %d", n, encoded, test.encoded[n])
				}
			}
		})
	}
}

// messageSize is the size of a pod in protobuf, without a resourceVersion.
func messageSize(t *testing.T, pod *example.Pod) int {
	t.Helper()
	message := &examplev1.Pod{}
	if err := suiteScheme.Convert(pod, message, nil); err != nil {
		t.Fatal(err)
	}
	message.ResourceVersion = ""
	return message.Size()
}
