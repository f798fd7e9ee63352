package migrate_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tallyman/storage"
	"tallyman/storage/memory"
	"tallyman/storage/migrate"
)

// TestSections: a copy and an export have all sections, such as the signatures of referrers, but for
// those that are made of the body, which are made anew; also of changes after the first pass, and of a
// target that has the body alone.
func TestSections(t *testing.T) {
	ofReferrer := func(signature string) storage.Value {
		return storage.Value{
			{Name: "body", Data: []byte(`{"descriptor":{}}`)}, {Name: "brief", Data: []byte("old")}, {Name: "signatures", Data: []byte(signature)},
		}
	}
	options := func(to storage.Backend) migrate.Options {
		return migrate.Options{To: to, Merge: merge, Brief: func(key string, value []byte) []byte { return fmt.Appendf(nil, "brief of %s, %d", key, len(value)) }}
	}
	for name, move := range map[string]func(from *memory.Store, to storage.Backend) error{
		"copy": func(from *memory.Store, to storage.Backend) error {
			o := options(to)
			o.From, o.Name = from, "source"
			_, err := migrate.Copy(t.Context(), o)
			return err
		},
		"export and import": func(from *memory.Store, to storage.Backend) error {
			var file bytes.Buffer
			if _, err := migrate.Export(t.Context(), from, &file, nil); err != nil {
				return err
			}
			_, err := migrate.Import(t.Context(), bytes.NewReader(file.Bytes()), options(to))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := memory.New(memory.Options{}), memory.New(memory.Options{})
			unsigned := commit(t, from, storage.Mutation{Key: "/referrers/c", Value: ofReferrer(`["c"]`)})
			first := commit(t, from, storage.Mutation{Key: "/referrers/a", Value: ofReferrer(`["good"]`)})
			put(t, to, "/referrers/a", `{"descriptor":{}}`, 0) // as an older version has copied it
			commit(t, from, storage.Mutation{Key: "/referrers/b", Value: ofReferrer(`["b"]`)})
			wanted := map[string]string{"/referrers/a": `["good"]`, "/referrers/b": `["b"]`}
			for n := range 2 {
				if err := move(from, to); err != nil {
					t.Fatal(err)
				}
				for key, want := range wanted {
					e, _, err := storage.GetEntry(t.Context(), to, key, storage.Read{})
					if err != nil || string(e.Value.Section("signatures")) != want || string(e.Value.Section("brief")) != fmt.Sprintf("brief of %s, 17", key) {
						t.Errorf("%s is %q, %v", key, e.Value, err)
					}
				}
				if n == 0 { // another manifest, which has no signatures
					unsigned = commit(t, from, storage.Mutation{Key: "/referrers/c", Expect: unsigned, Value: storage.Value{{Name: "body", Data: []byte(`{"descriptor":{"digest":"other"}}`)}, {Name: "signatures"}}})
				}
				wanted["/referrers/a"] = fmt.Sprintf(`["signed again, %d"]`, n)
				first = commit(t, from, storage.Mutation{Key: "/referrers/a", Expect: first, Value: ofReferrer(wanted["/referrers/a"])})
			}
			e, _, err := storage.GetEntry(t.Context(), to, "/referrers/c", storage.Read{})
			if err != nil || name == "copy" && (e.Value.Section("signatures") != nil || !strings.Contains(string(e.Value.Body()), "other")) {
				t.Errorf("without signatures: %q, %v", e.Value, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			report := &migrate.Report{}
			if err := migrate.Compare(ctx, from, to, merge, 0, report); err != nil || report.Missing != 1 {
				t.Errorf("%d are missing, want the one that was signed again, %v", report.Missing, err)
			}
		})
	}
}
