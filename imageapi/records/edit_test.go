package records

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/streams"
	"tallyman/storage"
)

var ofApp = streams.Stream{Namespace: "team", Name: "app"}

// edit edits tags of team/app.
func (s *shelf) edit(edits ...TagEdit) {
	s.t.Helper()
	var tags []string
	for _, edit := range edits {
		tags = append(tags, edit.Tag)
	}
	state, err := s.ReadStream(s.t.Context(), ofApp, tags...)
	if err != nil {
		s.t.Fatal(err)
	}
	to := state.Stream
	if to == nil {
		to = &imagev1.ImageStream{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "app", Generation: 1}}
	}
	commit, err := s.EditStream(state, to, edits)
	if err != nil {
		s.t.Fatal(err)
	}
	if result, err := s.backend.Commit(s.t.Context(), commit...); err != nil || !result.Succeeded {
		s.t.Fatalf("%+v, %v", result, err)
	}
}

func specOf(tag, kind, from string) *imagev1.TagReference {
	return &imagev1.TagReference{Name: tag, From: &corev1.ObjectReference{Kind: kind, Name: from}}
}

// TestPendingTags: a tag that points to nothing is no tag of the registry: it is in no list of tags and in no
// comparison, and its repository in no catalog, until it is pushed.
func TestPendingTags(t *testing.T) {
	for _, indexed := range []bool{false, true} {
		s := newShelf(t, Options{})
		if indexed {
			if err := s.SetComplete(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		lists := func() string {
			var compared []string
			err := s.EachTag(t.Context(), "team/app", func(tag string, _ digest.Digest, _ int64) error {
				compared = append(compared, tag)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			tags, _, err := s.TagNames(t.Context(), "team/app", 10, "")
			if err != nil {
				t.Fatal(err)
			}
			catalog, _, err := s.RepositoryNames(t.Context(), 10, "")
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(compared, tags) {
				t.Errorf("compared %v, listed %v", compared, tags)
			}
			return strings.Join(tags, " ") + " in " + strings.Join(catalog, " ")
		}
		external := &imagev1.NamedTagEventList{Tag: "b", Items: []imagev1.TagEvent{{DockerImageReference: "example.com/b"}}}
		s.edit(TagEdit{Tag: "a", Spec: specOf("a", streams.KindDockerImage, "busybox")}, TagEdit{Tag: "b", Status: external})
		if got := lists(); got != " in " {
			t.Errorf("before a push: %s", got)
		}
		s.set("c", "1")
		if got := lists(); got != "c in team/app" {
			t.Errorf("after a push: %s", got)
		}
		s.set("a", "1")
		if got := lists(); got != "a c in team/app" {
			t.Errorf("after a push of one that had a spec: %s", got)
		}
		if tag := s.tag(TagPrefix, "a"); tag.Spec == nil || tag.Spec.From.Name != "busybox" {
			t.Errorf("its spec is gone: %+v", tag)
		}
		s.set("a", "")
		if tag, deleted := s.tag(TagPrefix, "a"), s.tag(DeletedPrefix, "a"); tag != nil || deleted == nil || deleted.Spec != nil {
			t.Errorf("a deletion leaves %+v and %+v", tag, deleted)
		}
		s.edit(TagEdit{Tag: "b", Status: &imagev1.NamedTagEventList{}, Before: external})
		if tag := s.tag(TagPrefix, "b"); tag != nil {
			t.Errorf("without its item it is %+v", tag)
		}
	}
}

// TestEditWithMove: an edit is made with the move of its tag, and a tag that loses its manifest and has a spec
// stays, with its history among the deleted ones.
func TestEditWithMove(t *testing.T) {
	s := newShelf(t, Options{})
	s.set("v1", "a")
	move := func(to string, spec *imagev1.TagReference) {
		t.Helper()
		s.commit(func(ctx context.Context, b *storage.Batch) error {
			ctx = WithEdit(ctx, "team/app", &TagEdit{Tag: "v1", Spec: spec})
			_, err := s.SetTag(ctx, b, TagChange{Repository: "team/app", Tag: "v1", To: digest.Digest(to)})
			return err
		})
	}
	want := func(step, live, from string) {
		t.Helper()
		tag, got := s.tag(TagPrefix, "v1"), ""
		if tag.Spec != nil {
			got = tag.Spec.From.Name
		}
		if history(tag) != live || got != from {
			t.Errorf("%s: %q from %q, want %q from %q", step, history(tag), got, live, from)
		}
	}
	move("b", specOf("v1", streams.KindImageStreamTag, "x"))
	want("moved", "b#2 03:04:05 by , a#1 03:04:05 by a's", "x")
	move("b", specOf("v1", streams.KindImageStreamTag, "y"))
	want("as it was", "b#2 03:04:05 by , a#1 03:04:05 by a's", "y")
	move("", specOf("v1", streams.KindImageStreamTag, "y"))
	want("untagged", "", "y")
	if deleted := s.tag(DeletedPrefix, "v1"); deleted == nil || len(deleted.Status.Items) != 2 {
		t.Errorf("the history is %v", deleted)
	}
	move("c", specOf("v1", streams.KindImageStreamTag, "z"))
	want("tagged again", "c#3 03:04:05 by , b#2 03:04:05 by , a#1 03:04:05 by a's", "z")
	move("c", nil)
	want("without the spec", "c#3 03:04:05 by , b#2 03:04:05 by , a#1 03:04:05 by a's", "")
}

// TestShortenHistory: a history loses what a client has taken out of the part that it saw, with the pushers,
// and nothing else.
func TestShortenHistory(t *testing.T) {
	s := newShelf(t, Options{})
	for _, content := range []string{"a", "b", "c", "d"} {
		s.set("v1", content)
	}
	items := s.tag(TagPrefix, "v1").Status.Items // d c b a
	before := &imagev1.NamedTagEventList{Tag: "v1", Items: items[:3]}
	after := &imagev1.NamedTagEventList{Tag: "v1", Items: []imagev1.TagEvent{items[0], items[2]}}
	s.edit(TagEdit{Tag: "v1", Before: before, Status: after})
	if got, want := history(s.tag(TagPrefix, "v1")), "d#4 03:04:05 by d's, b#2 03:04:05 by b's, a#1 03:04:05 by a's"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestEditConflict: an edit of a stream of which a tag has changed meanwhile changes nothing.
func TestEditConflict(t *testing.T) {
	s := newShelf(t, Options{})
	s.set("v1", "a")
	state, err := s.ReadStream(t.Context(), ofApp)
	if err != nil {
		t.Fatal(err)
	}
	labeled := state.Stream.DeepCopy()
	labeled.Labels = map[string]string{"a": "b"}
	s.set("v2", "b")
	for name, commit := range map[string]func() []storage.Mutation{
		"an edit": func() []storage.Mutation {
			commit, err := s.EditStream(state, labeled, nil)
			if err != nil {
				t.Fatal(err)
			}
			return commit
		},
		"a deletion": func() []storage.Mutation { return s.DeleteStream(state, ofApp) },
	} {
		if result, err := s.backend.Commit(t.Context(), commit()...); err != nil || result.Succeeded {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
	}
	if stream, _ := s.stream("team/app"); stream == nil || stream.Labels != nil {
		t.Errorf("%+v", stream)
	}
}
