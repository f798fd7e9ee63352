package records

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// TestRelocate: after a change of the default namespace, tags are in the new one with their history, also
// those that were pushed there meanwhile, and deleted ones.
func TestRelocate(t *testing.T) {
	before := newShelf(t, Options{Depth: 3})
	set := func(s *shelf, repository, tag, to string) {
		s.now = s.now.Add(time.Second)
		s.commit(func(ctx context.Context, b *storage.Batch) error {
			_, err := s.SetTag(WithPusher(ctx, Pusher{User: to + "'s"}), b, TagChange{Repository: repository, Tag: tag, To: digest.Digest(to), Reference: "host/" + to})
			return err
		})
	}
	for _, step := range [][3]string{
		{"app", "v1", "one"}, {"app", "v1", "two"}, {"app", "gone", "one"}, {"app", "gone", ""}, {"team/app", "v1", "one"},
		{"app", "new", "one"}, {"app", "new", "two"}, {"app", "new", "three"},
	} {
		set(before, step[0], step[1], step[2])
	}
	names, err := streams.New("images")
	if err != nil {
		t.Fatal(err)
	}
	after := &shelf{t: t, backend: before.backend, now: before.now}
	after.Store = New(Options{Backend: before.backend, Names: names, Depth: 3, Now: func() time.Time { return after.now }})
	set(after, "app", "new", "four")
	for range 2 {
		moved, err := after.Relocate(t.Context())
		if err != nil || moved != 3 && moved != 0 {
			t.Fatal(moved, err)
		}
	}
	stored := func(key string) string {
		entry, _, err := storage.GetEntry(t.Context(), after.backend, key, storage.Read{})
		if err != nil {
			t.Fatal(err)
		}
		tag, err := DecodeTag(entry)
		if err != nil {
			t.Fatal(err)
		}
		if tag == nil {
			return "none"
		}
		return tag.Namespace + "/" + tag.Name + " " + tag.Annotations[AnnotationRepository] + ": " + history(tag)
	}
	for key, want := range map[string]string{
		TagPrefix + "images/app!v1":        "images/app:v1 app: two#2 03:04:07 by two's, one#1 03:04:06 by one's",
		TagPrefix + "images/app!new":       "images/app:new app: four#1 03:04:14 by four's, three#3 03:04:13 by three's, two#2 03:04:12 by two's",
		DeletedPrefix + "images/app!gone":  "images/app:gone app: one#1 03:04:08 by one's",
		TagPrefix + "team/app!v1":          "team/app:v1 team/app: one#1 03:04:10 by one's",
		TagPrefix + "default/app!v1":       "none",
		TagPrefix + "default/app!new":      "none",
		DeletedPrefix + "default/app!gone": "none",
	} {
		if got := stored(key); got != want {
			t.Errorf("%s:\n%s, want\n%s", strings.TrimPrefix(key, "/"), got, want)
		}
	}
	if tags, err := after.TagsOf(t.Context(), "app", "two", 0); err != nil || strings.Join(tags, " ") != "v1" {
		t.Errorf("the tags of two are %v, %v", tags, err)
	}
	if tags, _, err := after.TagNames(t.Context(), "app", -1, ""); err != nil || strings.Join(tags, " ") != "new v1" {
		t.Errorf("the tags are %v, %v", tags, err)
	}
}
