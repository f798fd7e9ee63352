package records

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/randfill"

	"tallyman/imageapi"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// stream returns the ImageStream of a repository, nil if there is none, and the revision of its last change.
func (s *shelf) stream(repository string) (stream *imagev1.ImageStream, changed int64) {
	s.t.Helper()
	key, change := streamKeys(s.options.Names.Stream(repository))
	entries, err := s.get(s.t.Context(), key, change)
	if err != nil {
		s.t.Fatal(err)
	}
	if entries[0] != nil {
		if stream, err = DecodeStream(entries[0]); err != nil {
			s.t.Fatal(err)
		}
	}
	return stream, revision(entries[1])
}

// TestStream: the first tag makes the stream, and each change of a tag is a change of it, in the same commit
// and after all else.
func TestStream(t *testing.T) {
	s := newShelf(t, Options{})
	if stream, changed := s.stream("team/app"); stream != nil || changed != 0 {
		t.Errorf("before: %v, %d", stream, changed)
	}
	s.set("v1", "a")
	first, last := s.stream("team/app")
	if first == nil || first.Name != "app" || first.Namespace != "team" || first.UID == "" || first.Generation != 1 || !first.CreationTimestamp.Time.Equal(s.now.Truncate(1e9)) || first.Annotations[AnnotationRepository] != "team/app" {
		t.Fatalf("%+v", first)
	}
	for _, step := range []struct {
		to      string
		changes bool
	}{{"b", true}, {"b", false}, {"", true}, {"", false}, {"a", true}} {
		s.set("v1", step.to)
		stream, changed := s.stream("team/app")
		window, err := s.backend.Window(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if (changed > last) != step.changes || changed != window.Current || stream.UID != first.UID {
			t.Errorf("to %q: changed at %d after %d, and the store at %d", step.to, changed, last, window.Current)
		}
		last = changed
	}
	if names, _, err := s.RepositoryNames(t.Context(), 10, ""); err != nil || fmt.Sprint(names) != "[team/app]" {
		t.Errorf("repositories %v, %v", names, err)
	}
}

// TestConcurrentTags: commits of tags of one stream do not get into each other's way, but for the first ones.
func TestConcurrentTags(t *testing.T) {
	s := newShelf(t, Options{})
	batches := make([]*storage.Batch, 2)
	prepare := func() {
		for i := range batches {
			batches[i] = &storage.Batch{}
			if _, err := s.SetTag(t.Context(), batches[i], TagChange{Repository: "team/app", Tag: fmt.Sprint("v", i), To: "a"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, want := range [][2]bool{{true, false}, {true, true}} { // the first makes the stream
		prepare()
		for i := range batches {
			if committed, err := batches[i].Commit(t.Context(), s.backend); err != nil || committed != want[i] {
				t.Errorf("commit %d: %t, %v, want %t", i, committed, err, want[i])
			}
		}
	}
}

// TestCompleteStreams: repositories with tags that have no stream get one, others keep theirs.
func TestCompleteStreams(t *testing.T) {
	s := newShelf(t, Options{})
	set := func(repository, to string) {
		s.commit(func(ctx context.Context, b *storage.Batch) error {
			_, err := s.SetTag(ctx, b, TagChange{Repository: repository, Tag: "v1", To: "a"})
			return err
		})
		if to == "" {
			s.commit(func(ctx context.Context, b *storage.Batch) error {
				_, err := s.SetTag(ctx, b, TagChange{Repository: repository, Tag: "v1"})
				return err
			})
		}
	}
	set("team/kept", "a")
	set("team/older", "a")
	set("team/empty", "")
	kept, changed := s.stream("team/kept")
	for _, repository := range []string{"team/older", "team/empty"} { // as an older version left them
		key, change := streamKeys(s.options.Names.Stream(repository))
		s.commit(func(_ context.Context, b *storage.Batch) error {
			b.Add(storage.Mutation{Operation: storage.Delete, Key: key, Expect: storage.AnyRevision})
			b.Add(storage.Mutation{Operation: storage.Delete, Key: change, Expect: storage.AnyRevision})
			return nil
		})
	}
	for range 2 {
		if err := s.CompleteStreams(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if again, at := s.stream("team/kept"); again.UID != kept.UID || at != changed {
		t.Errorf("one that is there has changed: %v", again)
	}
	if older, at := s.stream("team/older"); older == nil || at == 0 {
		t.Errorf("one is missing: %v, %d", older, at)
	}
	if empty, _ := s.stream("team/empty"); empty != nil {
		t.Errorf("a repository without tags has %v", empty)
	}
}

// TestRelocateStreams: a stream goes to the namespace that Names says, and leaves nothing behind.
func TestRelocateStreams(t *testing.T) {
	before := newShelf(t, Options{})
	before.commit(func(ctx context.Context, b *storage.Batch) error {
		_, err := before.SetTag(ctx, b, TagChange{Repository: "app", Tag: "v1", To: "a"})
		return err
	})
	former, _ := before.stream("app")
	names, err := streams.New("images")
	if err != nil {
		t.Fatal(err)
	}
	after := &shelf{t: t, backend: before.backend, now: before.now}
	after.Store = New(Options{Backend: before.backend, Names: names})
	for range 2 {
		if _, err := after.Relocate(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	moved, changed := after.stream("app")
	if moved == nil || moved.Namespace != "images" || moved.UID == former.UID || changed == 0 {
		t.Errorf("%+v, changed at %d", moved, changed)
	}
	if left, at := before.stream("app"); left != nil || at != 0 {
		t.Errorf("left behind: %+v, %d", left, at)
	}
	// One that has a stream at both places, as it was pushed to meanwhile, keeps the new one.
	before.commit(func(ctx context.Context, b *storage.Batch) error {
		_, err := before.SetTag(ctx, b, TagChange{Repository: "app", Tag: "v2", To: "a"})
		return err
	})
	if _, err := after.Relocate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept, _ := after.stream("app"); kept.UID != moved.UID {
		t.Errorf("the stream was replaced: %+v", kept)
	}
}

// TestDecode: any record that is stored is decoded as by the codec.
func TestDecode(t *testing.T) {
	filler := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 4).Funcs(metafuzzer.Funcs(imageapi.Codecs)...).
		Funcs(func(raw *runtime.RawExtension, c randfill.Continue) {
			raw.Raw = fmt.Appendf(nil, `{"kind":"DockerImage","Size":%d}`, c.Int63())
		})
	for kind, empty := range map[string]func() runtime.Object{
		"ImageTag": func() runtime.Object { return &imagev1.ImageTag{} }, "ImageStream": func() runtime.Object { return &imagev1.ImageStream{} },
	} {
		for range 200 {
			obj, fast, slow := empty(), empty(), empty()
			filler.Fill(obj)
			data, err := runtime.Encode(codec, obj)
			if err == nil {
				err = runtime.DecodeInto(codec, data, slow)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !imageapi.DecodeStored(data, kind, fast) || !reflect.DeepEqual(fast, slow) {
				t.Fatalf("%s is decoded as\n%#v, want\n%#v", data, fast, slow)
			}
		}
		broken := &storage.Entry{Key: "/x", Value: storage.Body([]byte(`{"kind":"` + kind + `","apiVersion":"image.openshift.io/v1","metadata":{"name":1}}`))}
		if err := decode(broken, kind, empty()); !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), "/x") {
			t.Errorf("a broken one: %v", err)
		}
	}
}
