package objects

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	k8sstorage "k8s.io/apiserver/pkg/storage"

	"tallyman/storage"
	"tallyman/storage/memory"
)

// TestShortWatch: a watch that ends soon gets its bookmark before.
func TestShortWatch(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	w := &watcher{ctx: ctx, opts: k8sstorage.ListOptions{Predicate: k8sstorage.SelectionPredicate{AllowWatchBookmarks: true}}}
	timer := w.bookmarkTimer()
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		t.Error("the watch ended without a bookmark")
	}
}

// TestReplaced: an object with another uid is another one. Of an object that cannot be read nobody
// knows, so that the one that replaces it is a change of it.
func TestReplaced(t *testing.T) {
	s, err := New(Options{
		Backend: memory.New(memory.Options{}), Codec: unstructured.UnstructuredJSONScheme, ResourcePrefix: "/pods/",
		NewFunc: func() runtime.Object { return &unstructured.Unstructured{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	entry := func(uid string) *storage.Entry {
		return &storage.Entry{Key: "/pods/a", Revision: 5, Value: storage.Body(fmt.Appendf(nil, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","uid":%q}}`, uid))}
	}
	for name, test := range map[string]struct {
		previous *storage.Entry
		kind     watch.EventType
		replaced bool
	}{
		"the same":    {entry("one"), watch.Modified, false},
		"another":     {entry("two"), watch.Added, true},
		"none before": {nil, watch.Added, false},
		"corrupt":     {&storage.Entry{Key: "/pods/a", Revision: 5, Err: &storage.CorruptError{Reason: "test"}}, watch.Modified, false},
	} {
		e := s.newEvent(&storage.Change{Key: "/pods/a", Revision: 9, Before: 8, Previous: test.previous, Current: entry("one")})
		kind, _, visible, err := e.forWatch(s.newSelector(k8sstorage.Everything))
		if err != nil || !visible || kind != test.kind || (e.replaced() != nil) != test.replaced {
			t.Errorf("%s: %s, visible %v, %v; replaced %v", name, kind, visible, err, e.replaced() != nil)
		}
		if replaced := e.replaced(); replaced != nil && replaced.revision != 8 {
			t.Errorf("%s: the former one is at %d, want the revision before", name, replaced.revision)
		}
	}
}
