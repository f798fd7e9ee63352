package objects_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	k8sstorage "k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value/encrypt/identity"

	"tallyman/storage"
	"tallyman/storage/encoding"
	"tallyman/storage/memory"
	"tallyman/storage/objects"
)

// bodies counts the scans that read bodies.
type bodies struct {
	storage.Backend
	scans int
}

func (b *bodies) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	if !req.KeysOnly && (req.Sections == nil || slices.Contains(req.Sections, storage.SectionBody)) {
		b.scans++
	}
	return b.Backend.Scan(ctx, req)
}

// briefAnswer is a list of names and phases.
func briefAnswer() objects.ListAnswer {
	answer := jsonAnswer()
	answer.Brief = true
	answer.Item = func(dst []byte, e *objects.Encoded) ([]byte, error) {
		phase := e.Extra()
		if phase == nil {
			obj, err := e.Object()
			if err != nil {
				return nil, err
			}
			phase = []byte(obj.(*example.Pod).Status.Phase)
		}
		return fmt.Appendf(dst, `{"metadata":%s,"status":{"phase":%q}}`, e.AppendMetadata(nil), phase), nil
	}
	return answer
}

// open returns a Store, which ends with the test.
func open(t testing.TB, o objects.Options) *objects.Store {
	t.Helper()
	s, err := objects.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestBriefLists: a list for which briefs are enough reads no bodies, and is the same with them.
func TestBriefLists(t *testing.T) {
	everything := k8sstorage.SelectionPredicate{Label: labels.Everything(), Field: fields.Everything(), GetAttrs: podAttributes}
	byLabel := everything
	byLabel.Label = labels.SelectorFromSet(labels.Set{"n": "1"})
	pages := everything
	pages.Limit = 2
	outdated := func(t *testing.T, b storage.Backend) { // by a program that knows of no briefs
		e, _, err := storage.GetEntry(t.Context(), b, "/pods/p1", storage.Read{})
		if err == nil {
			_, err = b.Commit(t.Context(), storage.Mutation{Key: e.Key, Expect: e.Revision, Value: storage.Body(bytes.Replace(e.Value.Body(), []byte("phase 1"), []byte("PHASE 1"), 1))})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		predicate k8sstorage.SelectionPredicate
		change    func(*testing.T, storage.Backend)
		options   func(*objects.Options)
		bodies    bool
		phases    string
	}{
		"all":             {everything, nil, nil, false, "phase 0, phase 1, phase 2"},
		"a page":          {pages, nil, nil, false, "phase 0, phase 1"},
		"an outdated one": {everything, outdated, nil, true, "phase 0, PHASE 1, phase 2"},
		"by a label":      {byLabel, nil, nil, true, "phase 1"},
		"another version": {everything, nil, func(o *objects.Options) { o.Brief.Version = "2" }, true, "phase 0, phase 1, phase 2"},
		"encrypted":       {everything, nil, func(o *objects.Options) { o.Transformer = identity.NewEncryptCheckTransformer() }, true, "phase 0, phase 1, phase 2"},
		"none can be made": {everything, nil, func(o *objects.Options) {
			o.Brief.Of = func(runtime.Object, []byte) ([]byte, error) { return nil, errors.New("none") }
		}, true, "phase 0, phase 1, phase 2"},
	} {
		t.Run(name, func(t *testing.T) {
			backend := &bodies{Backend: memory.New(memory.Options{})}
			options := func() objects.Options {
				return objects.Options{
					Backend: backend, Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
					Brief: &objects.Brief{Version: "1", Of: func(obj runtime.Object, _ []byte) ([]byte, error) {
						return []byte(obj.(*example.Pod).Status.Phase), nil
					}},
				}
			}
			write, read := options(), options()
			if test.options != nil {
				test.options(&read)
			}
			if name != "another version" {
				write = read
			}
			for i := range 3 {
				s := open(t, write)
				pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p", i), Labels: map[string]string{"n": fmt.Sprint(i)}}}
				pod.Status.Phase = example.PodPhase(fmt.Sprint("phase ", i))
				if err := s.Create(t.Context(), "/pods/"+pod.Name, pod, nil, 0); err != nil {
					t.Fatal(err)
				}
			}
			if test.change != nil {
				test.change(t, backend)
			}
			list, err := open(t, read).ListEncoded(t.Context(), "/pods/", k8sstorage.ListOptions{Recursive: true, Predicate: test.predicate}, briefAnswer(), nil)
			if err != nil {
				t.Fatal(err)
			}
			var answer bytes.Buffer
			if err := list.CacheEncode(jsonEncoder().Identifier(), nil, &answer); err != nil {
				t.Fatal(err)
			}
			pods := &example.PodList{}
			if err := runtime.DecodeInto(suiteCodec, answer.Bytes(), pods); err != nil {
				t.Fatalf("%s: %v", answer.String(), err)
			}
			var phases []string
			for i := range pods.Items {
				phases = append(phases, string(pods.Items[i].Status.Phase))
				if pods.Items[i].Labels == nil || pods.Items[i].ResourceVersion == "" {
					t.Errorf("an item without its metadata: %+v", pods.Items[i])
				}
			}
			if got := strings.Join(phases, ", "); got != test.phases {
				t.Errorf("the list is %s, want %s", got, test.phases)
			}
			if backend.scans > 0 != test.bodies {
				t.Errorf("%d scans read bodies", backend.scans)
			}
		})
	}
}

// rotten is a store in which briefs cannot be read.
type rotten struct{ storage.Backend }

func (r rotten) rot(e *storage.Entry) {
	if e != nil && e.Value.Section(storage.SectionBrief) != nil {
		e.Value = slices.DeleteFunc(slices.Clone(e.Value), func(s storage.Section) bool { return s.Name == storage.SectionBrief })
		e.Err = &storage.CorruptError{Reason: "section brief"}
	}
}

func (r rotten) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	result, err := r.Backend.Scan(ctx, req)
	if err == nil {
		for i := range result.Entries {
			r.rot(&result.Entries[i])
		}
	}
	return result, err
}

func (r rotten) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	req.Read = storage.Read{} // as for a Batch
	result, err := r.Backend.Get(ctx, req)
	if err == nil {
		for _, e := range result.Entries {
			r.rot(e)
		}
	}
	return result, err
}

// TestCorruptBrief: an object whose brief is corrupt is read in full, and can be written.
func TestCorruptBrief(t *testing.T) {
	o := objects.Options{
		Backend: rotten{memory.New(memory.Options{})}, Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
		Brief: &objects.Brief{Version: "1", Of: func(runtime.Object, []byte) ([]byte, error) { return []byte("x"), nil }},
	}
	s := open(t, o)
	if err := s.Create(t.Context(), "/pods/a", &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, nil, 0); err != nil {
		t.Fatal(err)
	}
	everything := k8sstorage.ListOptions{Recursive: true, Predicate: k8sstorage.SelectionPredicate{Label: labels.Everything(), Field: fields.Everything(), GetAttrs: podAttributes}}
	list, err := s.ListEncoded(t.Context(), "/pods/", everything, briefAnswer(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	if err := list.CacheEncode(jsonEncoder().Identifier(), nil, &answer); err != nil || !strings.Contains(answer.String(), `"name":"a"`) {
		t.Errorf("%s, %v", answer.String(), err)
	}
	updated := &example.Pod{}
	err = s.GuaranteedUpdate(t.Context(), "/pods/a", updated, false, nil, k8sstorage.SimpleUpdate(func(obj runtime.Object) (runtime.Object, error) {
		obj.(*example.Pod).Labels = map[string]string{"a": "b"}
		return obj, nil
	}), nil)
	if err != nil || updated.Labels["a"] != "b" {
		t.Errorf("%+v, %v", updated, err)
	}
}

// TestBriefsAreFilled: objects from before have briefs when the index is complete, at the revisions that
// they had.
func TestBriefsAreFilled(t *testing.T) {
	backend := memory.New(memory.Options{})
	o := objects.Options{
		Backend: backend, Codec: suiteCodec, Encoder: jsonEncoder(), ResourcePrefix: "/pods/", NewFunc: func() runtime.Object { return &example.Pod{} },
		Index: &objects.Index{
			Version: "1", Group: "pod", Terms: func(runtime.Object) []string { return []string{"pod"} },
			FieldTerm: func(string, string) (string, bool) { return "", false }, LabelTerm: func(string, string) string { return "" },
		},
	}
	created := &example.Pod{}
	if err := open(t, o).Create(t.Context(), "/pods/a", &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, created, 0); err != nil {
		t.Fatal(err)
	}
	o.Brief = &objects.Brief{Version: "1", Of: func(obj runtime.Object, _ []byte) ([]byte, error) { return []byte(obj.(*example.Pod).Name), nil }}
	if err := open(t, o).RebuildIndex(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, _, err := storage.GetEntry(t.Context(), backend, "/pods/a", storage.Read{Sections: []string{storage.SectionBrief}, Fresh: true})
	if err != nil || fmt.Sprint(e.Revision) != created.ResourceVersion {
		t.Fatalf("%+v, %v", e, err)
	}
	if b, ok := encoding.ParseBrief(e.Value.Section(storage.SectionBrief), "1"); !ok || string(b.Extra) != "a" {
		t.Errorf("the brief is %q", e.Value.Section(storage.SectionBrief))
	}
}
