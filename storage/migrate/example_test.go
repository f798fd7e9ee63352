package migrate_test

import (
	"bytes"
	"context"
	"fmt"

	"tallyman/storage"
	"tallyman/storage/memory"
	"tallyman/storage/migrate"
)

func filled(keys ...string) *memory.Store {
	store := memory.New(memory.Options{})
	for _, key := range keys {
		if _, err := store.Commit(context.Background(), storage.Mutation{Key: key, Value: storage.Body([]byte("{}\n"))}); err != nil {
			panic(err)
		}
	}
	return store
}

// keepTarget is a Merge for values that both stores have.
func keepTarget(_ string, _, to []byte) ([]byte, error) { return to, nil }

// Copy copies one store into another. A second call copies later changes only.
func ExampleCopy() {
	ctx := context.Background()
	from, to := filled("/images/a", "/images/b"), filled("/images/b")
	report, err := migrate.Copy(ctx, migrate.Options{From: from, To: to, Name: "old", Merge: keepTarget})
	if err != nil {
		panic(err)
	}
	fmt.Println("created:", report.Created.Load(), "same:", report.Same.Load())
	// Output: created: 1 same: 1
}

// An export is a file with a checksum, which every kind of store can import.
func ExampleExport() {
	ctx := context.Background()
	var file bytes.Buffer
	if _, err := migrate.Export(ctx, filled("/images/a", "/images/b"), &file, nil); err != nil {
		panic(err)
	}
	report, err := migrate.Import(ctx, bytes.NewReader(file.Bytes()), migrate.Options{To: filled(), Merge: keepTarget})
	if err != nil {
		panic(err)
	}
	fmt.Println("created:", report.Created.Load())
	// Output: created: 2
}
