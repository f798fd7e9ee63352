package memory_test

import (
	"context"
	"fmt"

	"tallyman/storage"
	"tallyman/storage/memory"
)

func Example() {
	ctx := context.Background()
	store := memory.New(memory.Options{})
	defer store.Close()

	// One commit changes several keys, or none.
	result, err := store.Commit(ctx,
		storage.Mutation{Key: "/fruit/apple", Value: storage.Body([]byte("red"))},
		storage.Mutation{Key: "/fruit/lemon", Value: storage.Body([]byte("yellow"))},
	)
	if err != nil {
		panic(err)
	}
	fmt.Println("committed:", result.Succeeded, len(result.Revisions))

	// The second creation of a key is a conflict, which names the mutation.
	result, err = store.Commit(ctx, storage.Mutation{Key: "/fruit/apple", Value: storage.Body([]byte("green"))})
	if err != nil {
		panic(err)
	}
	fmt.Println("committed:", result.Succeeded, string(result.Current.Value.Body()))
	// Output:
	// committed: true 2
	// committed: false red
}

// A scan reads a range in pages, all at one revision.
func ExampleStore_Scan() {
	ctx := context.Background()
	store := memory.New(memory.Options{})
	defer store.Close()
	for _, key := range []string{"/a", "/b", "/c"} {
		if _, err := store.Commit(ctx, storage.Mutation{Key: key, Value: storage.Body([]byte("x"))}); err != nil {
			panic(err)
		}
	}
	request := storage.ScanRequest{From: "/", To: "0", Limit: 2, KeysOnly: true}
	for {
		page, err := store.Scan(ctx, request)
		if err != nil {
			panic(err)
		}
		for _, entry := range page.Entries {
			fmt.Print(entry.Key, " ")
		}
		fmt.Println("more:", page.More)
		if !page.More {
			break
		}
		request.From, request.Revision = page.Entries[len(page.Entries)-1].Key+"\x00", page.Revision
	}
	// Output:
	// /a /b more: true
	// /c more: false
}

// A term finds the entries that carry it.
func ExampleStore_Scan_term() {
	ctx := context.Background()
	store := memory.New(memory.Options{})
	defer store.Close()
	if _, err := store.FillIndex(ctx, storage.FillRequest{Name: "/", Next: storage.IndexState{Version: "1", Complete: true}}); err != nil {
		panic(err)
	}
	for key, color := range map[string]string{"/apple": "red", "/cherry": "red", "/lemon": "yellow"} {
		_, err := store.Commit(ctx, storage.Mutation{
			Key: key, Value: storage.Body([]byte(color)), Terms: []storage.TermChange{{Group: "color", Terms: []string{color}}},
		})
		if err != nil {
			panic(err)
		}
	}
	page, err := store.Scan(ctx, storage.ScanRequest{From: "/", To: "0", Term: "red"})
	if err != nil {
		panic(err)
	}
	for _, entry := range page.Entries {
		fmt.Println(entry.Key)
	}
	// Output:
	// /apple
	// /cherry
}

// Log returns the changes after a revision, and waits if there are none.
func ExampleStore_Log() {
	ctx := context.Background()
	store := memory.New(memory.Options{})
	defer store.Close()
	start, err := store.Window(ctx)
	if err != nil {
		panic(err)
	}
	go func() {
		_, _ = store.Commit(ctx, storage.Mutation{Key: "/a", Value: storage.Body([]byte("1"))})
		_, _ = store.Commit(ctx, storage.Mutation{Key: "/a", Operation: storage.Delete, Expect: storage.AnyRevision})
	}()
	for after, seen := start.Current, 0; seen < 2; {
		changes, err := store.Log(ctx, storage.LogRequest{After: after})
		if err != nil {
			panic(err)
		}
		for i := range changes {
			fmt.Println(changes[i].Key, "deleted:", changes[i].Delete)
			after, seen = changes[i].Revision, seen+1
		}
	}
	// Output:
	// /a deleted: false
	// /a deleted: true
}
