package objects_test

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage/bolt"
	"tallyman/storage/objects"
)

// benchObjects is how many objects of about 8 KB a benchmark lists.
const benchObjects = 1000

func benchStore(b *testing.B) *objects.Store {
	b.Helper()
	backend, err := bolt.Open(bolt.Options{Path: filepath.Join(b.TempDir(), "images.db")})
	if err != nil {
		b.Fatal(err)
	}
	s := newStore(b, backend)
	annotations := map[string]string{}
	for i := range 80 {
		annotations[fmt.Sprintf("example.com/annotation-%d", i)] = strings.Repeat("x", 80)
	}
	for i := range benchObjects {
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%04d", i), Annotations: annotations}}
		if err := s.Create(b.Context(), "/pods/"+pod.Name, pod, nil, 0); err != nil {
			b.Fatal(err)
		}
	}
	return s
}

// compare runs two ways to the same answer in turn and reports how many times
// faster the first is.
func compare(b *testing.B, stored, encoded func() error) {
	b.Helper()
	var storedTime, encodedTime time.Duration
	for b.Loop() {
		start := time.Now()
		if err := stored(); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if err := encoded(); err != nil {
			b.Fatal(err)
		}
		storedTime += middle.Sub(start)
		encodedTime += time.Since(middle)
	}
	b.ReportMetric(float64(storedTime.Nanoseconds())/float64(b.N), "ns-stored/op")
	b.ReportMetric(float64(encodedTime.Nanoseconds())/float64(b.N), "ns-encoded/op")
	b.ReportMetric(float64(encodedTime)/float64(storedTime), "times-faster")
}

// BenchmarkGet compares a GET answered in stored bytes with one that is decoded
// and encoded.
func BenchmarkGet(b *testing.B) {
	s, encoder := benchStore(b), jsonEncoder()
	compare(b, func() error {
		obj, err := s.GetEncoded(b.Context(), "/pods/p0007", k8sstorage.GetOptions{})
		if err != nil {
			return err
		}
		return encoder.Encode(obj, io.Discard)
	}, func() error {
		obj := &example.Pod{}
		if err := s.Get(b.Context(), "/pods/p0007", k8sstorage.GetOptions{}, obj); err != nil {
			return err
		}
		return encoder.Encode(obj, io.Discard)
	})
}

// BenchmarkList is BenchmarkGet for a LIST of 1 000 objects.
func BenchmarkList(b *testing.B) {
	s, encoder := benchStore(b), jsonEncoder()
	opts := k8sstorage.ListOptions{Recursive: true, Predicate: k8sstorage.Everything}
	whole := func() (runtime.Object, error) {
		list := &example.PodList{}
		return list, s.GetList(b.Context(), "/pods/", opts, list)
	}
	compare(b, func() error {
		list, err := s.ListEncoded(b.Context(), "/pods/", opts, jsonAnswer(), whole)
		if err != nil {
			return err
		}
		return encoder.Encode(list, io.Discard)
	}, func() error {
		list, err := whole()
		if err != nil {
			return err
		}
		return encoder.Encode(list, io.Discard)
	})
}

// BenchmarkBriefList compares a LIST of metadata and one field that is made of briefs with one that
// decodes the objects.
func BenchmarkBriefList(b *testing.B) {
	backend, err := bolt.Open(bolt.Options{Path: filepath.Join(b.TempDir(), "images.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := backend.Close(); err != nil {
			b.Error(err)
		}
	})
	o := objects.Options{
		Backend: backend, Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
		Brief: &objects.Brief{Version: "1", Of: func(obj runtime.Object, _ []byte) ([]byte, error) {
			return []byte(obj.(*example.Pod).Status.Phase), nil
		}},
	}
	brief := open(b, o)
	o.Brief = nil
	decoded := open(b, o)
	for i := range benchObjects {
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%04d", i), Labels: map[string]string{"a": "b"}}}
		pod.Status.Phase, pod.Status.Message = "Running", strings.Repeat("a message of 8 KB; ", 420)
		if err := brief.Create(b.Context(), "/pods/"+pod.Name, pod, nil, 0); err != nil {
			b.Fatal(err)
		}
	}
	list := func(s *objects.Store) func() error {
		return func() error {
			list, err := s.ListEncoded(b.Context(), "/pods/", k8sstorage.ListOptions{Recursive: true, Predicate: k8sstorage.Everything}, briefAnswer(), nil)
			if err != nil {
				return err
			}
			return list.CacheEncode(jsonEncoder().Identifier(), nil, io.Discard)
		}
	}
	compare(b, list(brief), list(decoded))
}
