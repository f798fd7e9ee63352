package bolt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"tallyman/storage"
	"tallyman/storage/bolt"
)

// The embedded store is one file, which one process opens. It keeps its content.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "images.db")

	store, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		panic(err)
	}
	if _, err := store.Commit(ctx, storage.Mutation{Key: "/images/a", Value: storage.Body([]byte("content"))}); err != nil {
		panic(err)
	}
	if err := store.Close(); err != nil {
		panic(err)
	}

	if store, err = bolt.Open(bolt.Options{Path: path}); err != nil {
		panic(err)
	}
	defer func() { _ = store.Close() }()
	entry, _, err := storage.GetEntry(ctx, store, "/images/a", storage.Read{})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(entry.Value.Body()))
	// Output: content
}
