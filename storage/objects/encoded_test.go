package objects_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/encoding"
	"tallyman/storage/objects"
)

func jsonEncoder() runtime.Encoder {
	info, _ := runtime.SerializerInfoForMediaType(suiteCodecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	return suiteCodecs.EncoderForVersion(info.Serializer, examplev1.SchemeGroupVersion)
}

// listAnswer is an answer with the ordinary encoder for it.
type listAnswer struct {
	objects.ListAnswer
	encoder runtime.Encoder
}

// listAnswers are answers of lists of pods, in every format.
func listAnswers() map[string]listAnswer {
	media := func(name string) runtime.SerializerInfo {
		info, _ := runtime.SerializerInfoForMediaType(suiteCodecs.SupportedMediaTypes(), name)
		return info
	}
	answer := func(serializer runtime.Serializer, format encoding.Format) listAnswer {
		encoder := suiteCodecs.EncoderForVersion(serializer, examplev1.SchemeGroupVersion)
		return listAnswer{objects.ListAnswer{Encoder: encoder.Identifier(), Format: format, Empty: func(m metav1.ListMeta) ([]byte, error) {
			return runtime.Encode(encoder, &example.PodList{ListMeta: m, Items: []example.Pod{}})
		}}, encoder}
	}
	binary := func(a listAnswer, encode func(*examplev1.Pod) ([]byte, error)) listAnswer {
		a.Item = func(dst []byte, e *objects.Encoded) ([]byte, error) {
			obj, err := e.Object()
			if err != nil {
				return nil, err
			}
			pod := &examplev1.Pod{}
			if err := suiteScheme.Convert(obj, pod, nil); err != nil {
				return nil, err
			}
			item, err := encode(pod)
			return append(dst, item...), err
		}
		return a
	}
	cbor := media(runtime.ContentTypeCBOR).Serializer
	return map[string]listAnswer{
		"JSON":          answer(media(runtime.ContentTypeJSON).Serializer, encoding.JSON),
		"indented JSON": answer(media(runtime.ContentTypeJSON).PrettySerializer, encoding.IndentedJSON),
		"YAML":          answer(media(runtime.ContentTypeYAML).Serializer, encoding.YAML),
		"protobuf":      binary(answer(media(runtime.ContentTypeProtobuf).Serializer, encoding.Protobuf), (*examplev1.Pod).Marshal),
		"CBOR": binary(answer(cbor, encoding.CBOR), func(pod *examplev1.Pod) ([]byte, error) {
			document, err := runtime.Encode(cbor, pod)
			return bytes.TrimPrefix(document, []byte("\xd9\xd9\xf7")), err
		}),
	}
}

func jsonAnswer() objects.ListAnswer { return listAnswers()["JSON"].ListAnswer }

// newStore returns a Store over backend that answers in stored bytes. It closes
// both at the end of the test.
func newStore(t testing.TB, backend storage.Backend) *objects.Store {
	t.Helper()
	s, err := objects.New(objects.Options{
		Backend: backend, Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func podAttributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	p := obj.(*example.Pod)
	return p.Labels, fields.Set{"metadata.name": p.Name}, nil
}

// forEachBackend runs a test on a Store over each backend.
func forEachBackend(t *testing.T, test func(*testing.T, *objects.Store)) {
	for name, start := range selected() {
		t.Run(name, func(t *testing.T) { test(t, newStore(t, start(t)(t, time.Now))) })
	}
}

// TestEncodedAnswers: an answer made of stored bytes equals, byte for byte, the ordinary
// encoder's answer for the decoded object.
func TestEncodedAnswers(t *testing.T) {
	pods := []*example.Pod{
		{ObjectMeta: metav1.ObjectMeta{Name: "plain"}},
		{ObjectMeta: metav1.ObjectMeta{Name: "all", GenerateName: "a-", Namespace: "ns", SelfLink: "/x", UID: "u", Generation: 3}},
		{ObjectMeta: metav1.ObjectMeta{Name: "tricky", UID: `quote"\back`, Labels: map[string]string{"resourceVersion": "7", "metadata": "{"}}},
		{ObjectMeta: metav1.ObjectMeta{
			Name: "späte<b>&", Annotations: map[string]string{"a": "\",\"resourceVersion\":\"1\""}, CreationTimestamp: metav1.NewTime(time.Unix(1e9, 0)),
		}},
		{},
	}
	forEachBackend(t, func(t *testing.T, s *objects.Store) {
		for i, pod := range pods {
			key := fmt.Sprintf("/pods/%d", i)
			stored := &example.Pod{}
			if err := s.Create(t.Context(), key, pod, stored, 0); err != nil {
				t.Fatal(err)
			}
			encoded, err := s.GetEncoded(t.Context(), key, k8sstorage.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want, err := runtime.Encode(jsonEncoder(), stored)
			if err != nil {
				t.Fatal(err)
			}
			got, err := runtime.Encode(jsonEncoder(), encoded)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("pod %d:\n got %s\nwant %s", i, got, want)
			}
			pretty, _ := runtime.SerializerInfoForMediaType(suiteCodecs.SupportedMediaTypes(), runtime.ContentTypeYAML)
			yaml := suiteCodecs.EncoderForVersion(pretty.Serializer, examplev1.SchemeGroupVersion)
			want, _ = runtime.Encode(yaml, stored)
			if got, err := runtime.Encode(yaml, encoded); err != nil || !bytes.Equal(got, want) {
				t.Errorf("pod %d in YAML: %s, %v", i, got, err)
			}
		}
	})
}

// tricky are texts that serializers write in different ways.
var tricky = []string{
	"", "plain", "two\nlines", "ends with a line\n", "\n\nempty lines\n\n\nbetween\n", "  indented\n    more\n", "tab\tand \x00 control", `"quoted" \ 'single'`,
	"- a: list", "<html>&amp;", "# comment", "late ä ö ü 世界 \u2028", strings.Repeat("long words that a line does not hold ", 20), "trailing space \n", "null", "1e3", "yes",
}

// TestEncodedLists: a streamed list is the list that GetList returns, for every
// kind of list.
func TestEncodedLists(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *objects.Store) {
		var middle string
		for i := range 1203 { // several pages of an unlimited list
			pod, out := &example.Pod{}, &example.Pod{}
			pod.Name = fmt.Sprintf("p%04d", i)
			pod.Labels = map[string]string{"third": fmt.Sprint(i%3 == 0)}
			pod.Annotations = map[string]string{"text": tricky[i%len(tricky)]}
			if err := s.Create(t.Context(), "/pods/"+pod.Name, pod, out, 0); err != nil {
				t.Fatal(err)
			}
			if i == 700 {
				middle = out.ResourceVersion
			}
		}
		third := k8sstorage.SelectionPredicate{Label: labels.SelectorFromSet(labels.Set{"third": "true"}), Field: fields.Everything(), GetAttrs: podAttributes}
		none := k8sstorage.SelectionPredicate{Label: labels.SelectorFromSet(labels.Set{"third": "x"}), Field: fields.Everything(), GetAttrs: podAttributes}
		limited := func(p k8sstorage.SelectionPredicate, limit int64) k8sstorage.SelectionPredicate {
			p.Limit = limit
			return p
		}
		for name, opts := range map[string]k8sstorage.ListOptions{
			"all":               {Predicate: k8sstorage.Everything},
			"selected":          {Predicate: third},
			"nothing":           {Predicate: none},
			"limit":             {Predicate: limited(k8sstorage.Everything, 10)},
			"limit beyond end":  {Predicate: limited(k8sstorage.Everything, 5000)},
			"selected, limit":   {Predicate: limited(third, 17)},
			"exact revision":    {Predicate: k8sstorage.Everything, ResourceVersion: middle, ResourceVersionMatch: metav1.ResourceVersionMatchExact},
			"exact and limited": {Predicate: limited(k8sstorage.Everything, 600), ResourceVersion: middle, ResourceVersionMatch: metav1.ResourceVersionMatchExact},
		} {
			t.Run(name, func(t *testing.T) { compareLists(t, s, opts) })
		}
	})
}

// compareLists follows continue tokens to the end of a list.
func compareLists(t *testing.T, s *objects.Store, opts k8sstorage.ListOptions) {
	opts.Recursive = true
	for page := 0; ; page++ {
		want := &example.PodList{}
		if err := s.GetList(t.Context(), "/pods/", opts, want); err != nil {
			t.Fatal(err)
		}
		for name, answer := range listAnswers() {
			list, err := s.ListEncoded(t.Context(), "/pods/", opts, answer.ListAnswer, func() (runtime.Object, error) { return nil, errors.New("it is read as a whole") })
			if err != nil {
				t.Fatal(err)
			}
			got, err := runtime.Encode(answer.encoder, list)
			if err != nil {
				t.Fatal(err)
			}
			ordinary, err := runtime.Encode(answer.encoder, want)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, ordinary) {
				at := 0
				for at < min(len(got), len(ordinary)) && got[at] == ordinary[at] {
					at++
				}
				t.Fatalf("page %d in %s differs at %d:\n got %.300q\nwant %.300q", page, name, at, got[max(0, at-50):], ordinary[max(0, at-50):])
			}
		}
		if want.Continue == "" {
			return
		}
		opts.Predicate.Continue, opts.ResourceVersion, opts.ResourceVersionMatch = want.Continue, "", ""
	}
}

// TestSlowWatch: a client that does not read is told to come back, and does not
// hold up the others.
func TestSlowWatch(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *objects.Store) {
		slow := watchAll(t, s, "")
		fast := watchAll(t, s, "")
		for s.Joined() < 2 { // one that catches up reads by itself, and has no queue
			time.Sleep(time.Millisecond)
		}
		// More than the queue, a batch taken off it, and the channel hold, but never more at a
		// time than the fast watch can be behind.
		const batches, each = 22, 100
		const changes = batches * each
		for batch := range batches {
			createPods(t, s, fmt.Sprintf("p%d-", batch), each)
			for i := range each {
				if e := next(t, fast); e.Type != watch.Added {
					t.Fatalf("event %d of batch %d of the fast watch: %v", i, batch, e)
				}
			}
		}
		events := 0
		for e := range slow.ResultChan() {
			if e.Type == watch.Error {
				if err := apierrors.FromObject(e.Object); !apierrors.IsTooManyRequests(err) {
					t.Errorf("the slow watch ended with %v", err)
				}
				if events >= changes {
					t.Errorf("it had all %d events", events)
				}
				return
			}
			events++
		}
		t.Errorf("the slow watch ended after %d events without an error", events)
	})
}

func watchAll(t *testing.T, s *objects.Store, resourceVersion string) watch.Interface {
	t.Helper()
	no := false
	w, err := s.Watch(t.Context(), "/pods/", k8sstorage.ListOptions{
		ResourceVersion: resourceVersion, Predicate: k8sstorage.Everything, Recursive: true, SendInitialEvents: &no,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

func next(t *testing.T, w watch.Interface) watch.Event {
	select {
	case e := <-w.ResultChan():
		return e
	case <-time.After(30 * time.Second):
		t.Error("no event in 30 s")
		return watch.Event{}
	}
}

func createPods(t *testing.T, s *objects.Store, prefix string, n int) {
	t.Helper()
	createLarge(t, s, prefix, n, 0)
}

// createLarge creates pods with an annotation of so many bytes.
func createLarge(t *testing.T, s *objects.Store, prefix string, n, size int) {
	t.Helper()
	for i := range n {
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s%04d", prefix, i)}}
		if size > 0 {
			pod.Annotations = map[string]string{"a": strings.Repeat("x", size)}
		}
		if err := s.Create(t.Context(), "/pods/"+pod.Name, pod, nil, 0); err != nil {
			t.Error(err)
			return
		}
	}
}

// TestWatchSeesEverything has watches come at different moments while several
// goroutines write: each sees every change after its start once and in order.
func TestWatchSeesEverything(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *objects.Store) {
		const writers, each, watches = 4, 100, 8
		start, err := s.GetCurrentResourceVersion(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var writing, watching sync.WaitGroup
		for writer := range writers {
			writing.Go(func() { createPods(t, s, fmt.Sprintf("w%d-", writer), each) })
		}
		for i := range watches {
			watching.Go(func() {
				time.Sleep(time.Duration(i) * 5 * time.Millisecond) // spread over the writes
				w := watchAll(t, s, fmt.Sprint(start))
				var last uint64
				for n := range writers * each {
					e := next(t, w)
					version, err := k8sstorage.APIObjectVersioner{}.ObjectResourceVersion(e.Object.(*objects.Encoded).GetObject())
					if err != nil || e.Type != watch.Added || version <= last {
						t.Errorf("watch %d, event %d: %v at %d after %d, %v", i, n, e.Type, version, last, err)
						return
					}
					last = version
				}
			})
		}
		writing.Wait()
		watching.Wait()
	})
}

// TestCloseEndsWatches: at shutdown a watch ends well, without an error.
func TestCloseEndsWatches(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *objects.Store) {
		w := watchAll(t, s, "")
		s.Close()
		if e, open := <-w.ResultChan(); open {
			t.Errorf("the watch got %v at shutdown", e)
		}
		no := false
		_, err := s.Watch(t.Context(), "/pods/", k8sstorage.ListOptions{Predicate: k8sstorage.Everything, SendInitialEvents: &no})
		if !apierrors.IsServiceUnavailable(err) {
			t.Errorf("a watch after shutdown: %v", err)
		}
	})
}

// TestUnavailableBackend: clients see 503 with Retry-After, not 500.
func TestUnavailableBackend(t *testing.T) {
	for name, start := range selected() {
		t.Run(name, func(t *testing.T) {
			backend := start(t)(t, time.Now)
			s, err := objects.New(objects.Options{
				Backend: backend, Codec: suiteCodec, ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
			})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := errors.Join(s.ReadinessCheck(), backend.Close()); err != nil {
				t.Fatal(err)
			}
			for call, err := range map[string]error{
				"Get":    s.Get(t.Context(), "/pods/a", k8sstorage.GetOptions{}, &example.Pod{}),
				"Create": s.Create(t.Context(), "/pods/a", &example.Pod{}, nil, 0),
				"List":   s.GetList(t.Context(), "/pods/", k8sstorage.ListOptions{Predicate: k8sstorage.Everything, Recursive: true}, &example.PodList{}),
				"Ready":  s.ReadinessCheck(),
			} {
				seconds, retry := apierrors.SuggestsClientDelay(err)
				if !apierrors.IsServiceUnavailable(err) || !retry || seconds != 1 || !strings.Contains(err.Error(), "closed") {
					t.Errorf("%s: %v", call, err)
				}
			}
		})
	}
}
