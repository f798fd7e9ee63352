package check_test

import (
	"context"
	"fmt"

	"tallyman/storage"
	"tallyman/storage/check"
	"tallyman/storage/memory"
)

func ExampleCheck() {
	ctx := context.Background()
	store := memory.New(memory.Options{})
	defer store.Close()
	if _, err := store.Commit(ctx, storage.Mutation{Key: "/images/a", Value: storage.Body([]byte("{}"))}); err != nil {
		panic(err)
	}
	report, err := check.Check(ctx, check.Options{
		Store: store, Index: "images",
		Terms:   func(string, []byte) ([]storage.TermChange, error) { return nil, nil },
		Problem: func(where, problem string) { fmt.Println(where, problem) },
	})
	if err != nil {
		panic(err)
	}
	fmt.Println("entries:", report.Entries, "problems:", report.Problems)
	// Output: entries: 1 problems: 0
}
