package objects

import (
	"context"
	"testing"
	"time"

	k8sstorage "k8s.io/apiserver/pkg/storage"
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
