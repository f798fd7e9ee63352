package objects_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/apis/example"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/memory"
	"tallyman/storage/objects"
)

// podIndex indexes labels, and the field node.
var podIndex = objects.Index{
	Version: "1", Group: "pod",
	Terms: func(obj runtime.Object) []string {
		pod := obj.(*example.Pod)
		var terms []string
		for key, value := range pod.Labels {
			terms = append(terms, "label:"+key+"="+value)
		}
		return append(terms, "node="+pod.Spec.NodeName)
	},
	FieldTerm: func(field, value string) (string, bool) { return field + "=" + value, field == "node" && value != "" },
	LabelTerm: func(label, value string) string { return "label:" + label + "=" + value },
}

func nodeAttributes(obj runtime.Object) (labels.Set, fields.Set, error) {
	pod := obj.(*example.Pod)
	return pod.Labels, fields.Set{"node": pod.Spec.NodeName, "metadata.name": pod.Name}, nil
}

func podStore(t *testing.T, b storage.Backend, index *objects.Index) *objects.Store {
	t.Helper()
	s, err := objects.New(objects.Options{
		Backend: b, Codec: suiteCodec, ResourcePrefix: "/pods/", GroupResource: schema.GroupResource{Resource: "pods"},
		NewFunc: func() runtime.Object { return &example.Pod{} }, Index: index,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// counted counts the entries that are read.
type counted struct {
	storage.Backend
	entries int
}

func (c *counted) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	r, err := c.Backend.Scan(ctx, req)
	if err == nil {
		c.entries += len(r.Entries)
	}
	return r, err
}

func randomPod(random *rand.Rand, i int) *example.Pod {
	pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod%03d", i), Namespace: "ns", Labels: map[string]string{}}}
	for _, label := range []string{"a", "b", "c"} {
		if random.IntN(2) == 0 {
			pod.Labels[label] = fmt.Sprint(random.IntN(4))
		}
	}
	pod.Spec.NodeName = []string{"", "n1", "n2", "n3"}[random.IntN(4)]
	return pod
}

func podKey(pod *example.Pod) string { return "/pods/ns/" + pod.Name }

func predicate(t *testing.T, label, field string) k8sstorage.SelectionPredicate {
	t.Helper()
	l, err := labels.Parse(label)
	if err != nil {
		t.Fatal(err)
	}
	f, err := fields.ParseSelector(field)
	if err != nil {
		t.Fatal(err)
	}
	return k8sstorage.SelectionPredicate{Label: l, Field: f, GetAttrs: nodeAttributes}
}

// listed lists in pages of limit, all for 0.
func listed(t *testing.T, s *objects.Store, p k8sstorage.SelectionPredicate, limit int64, revision string) string {
	t.Helper()
	var all []string
	for p.Limit = limit; ; {
		list := &example.PodList{}
		opts := k8sstorage.ListOptions{Predicate: p, Recursive: true}
		if p.Continue == "" && revision != "" {
			opts.ResourceVersion, opts.ResourceVersionMatch = revision, metav1.ResourceVersionMatchExact
		}
		if err := s.GetList(t.Context(), "/pods/", opts, list); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			all = append(all, list.Items[i].Name)
		}
		if p.Continue = list.Continue; p.Continue == "" {
			return strings.Join(all, " ")
		}
	}
}

// TestSelectByTerms compares lists and watches by selectors with those of a Store that
// has no index, at the present and at past revisions, while objects change.
func TestSelectByTerms(t *testing.T) {
	b := memory.New(memory.Options{})
	indexed, plain := podStore(t, b, &podIndex), podStore(t, b, nil)
	ctx, cancel := context.WithCancel(t.Context())
	random := rand.New(rand.NewPCG(7, 8))
	for i := range 100 { // half of them were written before there was an index
		s := []*objects.Store{plain, indexed}[i%2]
		pod := randomPod(random, i)
		if err := s.Create(t.Context(), podKey(pod), pod, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	selectors := [][2]string{
		{"a=1", ""}, {"a in (1,2)", ""}, {"a in (1,2),b=0", ""}, {"a!=1", ""}, {"a notin (1,2),b", ""}, {"!a", ""}, {"a,b!=3", ""},
		{"", "node=n1"}, {"", "node!=n1"}, {"", "node="}, {"", "node!="}, {"a=1", "node=n2"}, {"c in (0,1,2,3)", "node!=n3"}, {"a=none", ""},
		{"a=1", "metadata.name=pod003"}, {"a=1,a=2", ""}, {"a==1", "node==n1"}, {"a in (0,1),a notin (1)", ""},
	}
	early := current(t, b)
	for i := range 60 {
		changePod(t, []*objects.Store{plain, indexed}[i%2], random)
	}
	for _, selector := range selectors { // without an index
		p := predicate(t, selector[0], selector[1])
		if got, want := listed(t, indexed, p, 0, ""), listed(t, plain, p, 0, ""); got != want {
			t.Errorf("%s before there is an index: %s, want %s", selector, got, want)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		indexed.MaintainIndex(ctx)
	}()
	awaitIndex(t, indexed)
	events := map[string][2]<-chan watch.Event{}
	for _, selector := range selectors {
		var both [2]<-chan watch.Event
		for i, s := range []*objects.Store{indexed, plain} {
			w, err := s.Watch(t.Context(), "/pods/", k8sstorage.ListOptions{Predicate: predicate(t, selector[0], selector[1]), Recursive: true, ProgressNotify: true, ResourceVersion: early})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			both[i] = w.ResultChan()
		}
		events[selector[0]+";"+selector[1]] = both
	}
	revisions := []string{"", early, current(t, b)}
	for i := range 300 {
		changePod(t, indexed, random)
		if i%30 == 0 {
			revisions = append(revisions, current(t, b))
		}
	}
	until, err := strconv.ParseUint(current(t, b), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // until all watches have told that they are there
		for ctx.Err() == nil {
			for _, s := range []*objects.Store{indexed, plain} {
				_ = s.RequestWatchProgress(ctx)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	for _, selector := range selectors {
		p := predicate(t, selector[0], selector[1])
		for _, revision := range revisions {
			want := listed(t, plain, p, 0, revision)
			for _, limit := range []int64{0, 1, 3, 1000} {
				if got := listed(t, indexed, p, limit, revision); got != want {
					t.Errorf("%s at %q in pages of %d: %s, want %s", selector, revision, limit, got, want)
				}
			}
		}
		compareEvents(t, selector, events[selector[0]+";"+selector[1]], until)
	}
	cancel()
	<-done
}

func awaitIndex(t *testing.T, s *objects.Store) {
	t.Helper()
	for range 3000 {
		if s.IndexProgress().Complete {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("the index is not complete: %+v", s.IndexProgress())
}

func current(t *testing.T, b storage.Backend) string {
	t.Helper()
	w, err := b.Window(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(w.Current)
}

// changePod creates, changes or deletes a random pod.
func changePod(t *testing.T, s *objects.Store, random *rand.Rand) {
	t.Helper()
	pod := randomPod(random, random.IntN(100))
	if random.IntN(4) == 0 {
		err := s.Delete(t.Context(), podKey(pod), &example.Pod{}, nil, k8sstorage.ValidateAllObjectFunc, nil, k8sstorage.DeleteOptions{})
		if err != nil && !k8sstorage.IsNotFound(err) {
			t.Fatal(err)
		}
		return
	}
	err := s.GuaranteedUpdate(t.Context(), podKey(pod), &example.Pod{}, true, nil, func(runtime.Object, k8sstorage.ResponseMeta) (runtime.Object, *uint64, error) {
		return pod.DeepCopy(), nil, nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// compareEvents wants both watches to have the same events up to a revision.
func compareEvents(t *testing.T, selector [2]string, both [2]<-chan watch.Event, until uint64) {
	t.Helper()
	next := func(c <-chan watch.Event) string {
		for e := range c {
			if e.Type != watch.Bookmark {
				obj := e.Object.(*objects.Encoded)
				return fmt.Sprint(e.Type, " ", obj.GetObjectMeta().GetName(), " ", obj.GetObjectMeta().GetResourceVersion())
			}
			version, err := k8sstorage.APIObjectVersioner{}.ObjectResourceVersion(e.Object)
			if err != nil {
				t.Fatal(err)
			}
			if version >= until {
				return ""
			}
		}
		return "the watch ended"
	}
	for {
		got, want := next(both[0]), next(both[1])
		if got != want {
			t.Errorf("a watch of %s has %q, want %q", selector, got, want)
			return
		}
		if want == "" {
			return
		}
	}
}

// TestSelectiveListReadsLittle: a list by selector reads the entries of its rarest
// requirement, and one by a term that another writer gave finds it.
func TestSelectiveListReadsLittle(t *testing.T) {
	b := &counted{Backend: memory.New(memory.Options{})}
	s := podStore(t, b, &podIndex)
	for i := range 500 {
		pod := &example.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod%03d", i), Labels: map[string]string{"all": "yes", "tenth": fmt.Sprint(i % 10), "one": fmt.Sprint(i)}}}
		if err := s.Create(t.Context(), podKey(pod), pod, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.MaintainIndex(ctx)
	awaitIndex(t, s)
	for selector, most := range map[string]int{"all=yes,tenth=3": 50, "all=yes,tenth in (3,4),one=13": 1, "one in (1,2,3)": 3, "none=x": 0} {
		b.entries = 0
		listed(t, s, predicate(t, selector, ""), 0, "")
		if b.entries > most {
			t.Errorf("%s reads %d entries, want at most %d", selector, b.entries, most)
		}
	}
	// Terms of a group that the Store does not know of, as another writer gives them,
	// stay when the object is labelled.
	r, err := b.Commit(t.Context(), storage.Mutation{
		Key: "/pods/ns/pod007", Expect: storage.AnyRevision, Value: storage.Value{{Name: "other", Data: []byte("x")}},
		Terms: []storage.TermChange{{Group: "other", Terms: []string{"node=elsewhere"}}},
	})
	if err != nil || !r.Succeeded {
		t.Fatalf("%+v, %v", r, err)
	}
	update := func(obj runtime.Object, _ k8sstorage.ResponseMeta) (runtime.Object, *uint64, error) {
		pod := obj.(*example.Pod).DeepCopy()
		pod.Labels["new"] = "label"
		return pod, nil, nil
	}
	if err := s.GuaranteedUpdate(t.Context(), "/pods/ns/pod007", &example.Pod{}, false, nil, update, nil); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, s, predicate(t, "new=label", "node=elsewhere"), 0, ""); got != "pod007" {
		t.Errorf("by the term of another writer: %q", got)
	}
	e, _, err := storage.GetEntry(t.Context(), b, "/pods/ns/pod007", storage.Read{})
	if err != nil || string(e.Value.Section("other")) != "x" || !slices.ContainsFunc(e.Value, func(s storage.Section) bool { return s.Name == storage.SectionBody }) {
		t.Errorf("the section of another writer is gone: %+v, %v", e, err)
	}
}
