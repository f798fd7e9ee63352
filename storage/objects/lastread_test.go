package objects_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/memory"
	"tallyman/storage/objects"
)

// reads counts reads of keys.
type reads struct {
	storage.Backend
	n atomic.Int32
}

func (r *reads) Get(ctx context.Context, req storage.GetRequest) (*storage.GetResult, error) {
	r.n.Add(1)
	return r.Backend.Get(ctx, req)
}

// TestLastRead: a deletion begins with what the same context has read, judges the object that it deletes, and
// leaves the one that was read to its reader.
func TestLastRead(t *testing.T) {
	backend := &reads{Backend: memory.New(memory.Options{})}
	t.Cleanup(func() { _ = backend.Close() })
	s := newStore(t, backend)
	const key = "/pods/a"
	label := func(value string) {
		t.Helper()
		if err := s.GuaranteedUpdate(t.Context(), key, &example.Pod{}, false, nil, func(obj runtime.Object, _ k8sstorage.ResponseMeta) (runtime.Object, *uint64, error) {
			obj.(*example.Pod).Labels = map[string]string{"a": value}
			return obj, nil, nil
		}, nil); err != nil {
			t.Fatal(err)
		}
	}
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		remember bool
		between  func()
		validate func(*example.Pod) error
		reads    int32
		refuses  bool
		label    string
	}{
		"unchanged":            {remember: true, reads: 1, label: "1"},
		"without":              {reads: 2, label: "1"},
		"changed between":      {remember: true, between: func() { label("2") }, reads: 2, label: "2"}, // the update reads, the failed commit tells
		"refused":              {remember: true, validate: func(*example.Pod) error { return refused }, reads: 2, refuses: true, label: "1"},
		"another key is read":  {remember: true, between: func() { mustCreate(t, s, "b") }, reads: 1, label: "1"},
		"refused as it was":    {remember: true, between: func() { label("2") }, reads: 3, label: "2", validate: func(p *example.Pod) error { return map[bool]error{true: refused}[p.Labels["a"] == "1"] }},
		"refused as it is now": {remember: true, between: func() { label("2") }, reads: 2, refuses: true, label: "2", validate: func(p *example.Pod) error { return map[bool]error{true: refused}[p.Labels["a"] == "2"] }},
	} {
		t.Run(name, func(t *testing.T) {
			mustCreate(t, s, "a")
			label("1")
			ctx := t.Context()
			if test.remember {
				ctx = objects.WithLastRead(ctx)
			}
			backend.n.Store(0)
			read, deleted := &example.Pod{}, &example.Pod{}
			if err := s.Get(ctx, key, k8sstorage.GetOptions{}, read); err != nil {
				t.Fatal(err)
			}
			read.Labels["a"] = "of the reader"
			if test.between != nil {
				test.between()
			}
			err := s.Delete(ctx, key, deleted, nil, func(_ context.Context, obj runtime.Object) error {
				if test.validate == nil {
					return nil
				}
				return test.validate(obj.(*example.Pod))
			}, nil, k8sstorage.DeleteOptions{})
			if n := backend.n.Load(); n != test.reads {
				t.Errorf("%d reads, want %d", n, test.reads)
			}
			if test.refuses != errors.Is(err, refused) || !test.refuses && err != nil {
				t.Errorf("deletion: %v", err)
			}
			if test.refuses {
				err = s.Delete(t.Context(), key, deleted, nil, k8sstorage.ValidateAllObjectFunc, nil, k8sstorage.DeleteOptions{})
			}
			if err != nil || deleted.Labels["a"] != test.label || deleted.ResourceVersion == read.ResourceVersion {
				t.Errorf("%v: the one with label %q was deleted, at %s, want %q", err, deleted.Labels["a"], deleted.ResourceVersion, test.label)
			}
			_ = s.Delete(t.Context(), "/pods/b", deleted, nil, k8sstorage.ValidateAllObjectFunc, nil, k8sstorage.DeleteOptions{})
		})
	}
}
