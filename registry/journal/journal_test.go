package journal

import (
	"errors"
	"slices"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/opencontainers/go-digest"
)

// TestJournal: entries are found newest first, each for itself. Other files in their place are
// reported.
func TestJournal(t *testing.T) {
	ctx, d := t.Context(), inmemory.New()
	j := New(d)
	if files, err := j.Files(ctx); err != nil || len(files) != 0 {
		t.Errorf("without any: %v, %v", files, err)
	}
	m := Entry{Repository: "team/app", Digest: digest.FromString("x"), Host: "h"}
	old := pending + "/zoldentryofaformerversion" // by its name it would be the newest
	if err := errors.Join(d.PutContent(ctx, old, []byte(`{"repository":"old"}`)), d.PutContent(ctx, pending+"/junk", []byte("{"))); err != nil {
		t.Fatal(err)
	}
	first, err := j.Add(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	second, err := j.Add(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	if files, err := j.Files(ctx); err != nil || !slices.Equal(files, []string{second.file, first.file, old, pending + "/junk"}) {
		t.Errorf("%v, %v", files, err)
	}
	if got, known, err := j.Read(ctx, first.file); got != first || !known || err != nil || got.About() != m.About() || got.Host != "h" {
		t.Errorf("%+v, %v, %v", got, known, err)
	}
	if _, known, err := j.Read(ctx, pending+"/junk"); known || err == nil {
		t.Errorf("a file that is no entry: %v, %v", known, err)
	}
	if !driver.PathRegexp.MatchString(first.file) {
		t.Errorf("%s is not a path that drivers take", first.file)
	}
	if err := errors.Join(j.Remove(ctx, first), j.Remove(ctx, first)); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if _, known, err := j.Read(ctx, first.file); known || err != nil {
		t.Errorf("a removed entry: %v, %v", known, err)
	}
	if _, known, err := j.Read(ctx, second.file); !known || err != nil {
		t.Errorf("the other entry about the same thing is gone: %v", err)
	}
}
