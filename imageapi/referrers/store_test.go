package referrers

import (
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/storage/memory"
)

// TestReferrers: pages of a repository's referrers of a subject, and of no other.
func TestReferrers(t *testing.T) {
	s := NewStore(memory.New(memory.Options{}))
	subject := digest.FromString("subject")
	add := func(repository, content string) digest.Digest {
		r := &Referrer{Subject: subject, Repository: repository, Descriptor: imagespec.Descriptor{Digest: digest.FromString(repository + content)}}
		if changed, err := s.Set(t.Context(), r); err != nil || !changed {
			t.Fatal(changed, err)
		}
		if changed, err := s.Set(t.Context(), r); err != nil || changed {
			t.Errorf("the second time: %t, %v", changed, err)
		}
		return r.Descriptor.Digest
	}
	var want []string
	for i := range 5 {
		want = append(want, add("app", fmt.Sprint(i)).String())
	}
	add("app/more", "x")
	add("ap", "x")
	tag := &Referrer{Subject: subject, Repository: "app", Tag: "sha256-x.sig", Descriptor: imagespec.Descriptor{Digest: subject}}
	if changed, err := s.Set(t.Context(), tag); err != nil || !changed {
		t.Fatal(changed, err)
	}
	slices.Sort(want)
	var got []string
	after := digest.Digest("")
	for {
		page, more, err := s.List(t.Context(), subject, "app", after, 2)
		if err != nil || len(page) > 2 {
			t.Fatal(page, err)
		}
		for _, r := range page {
			after = r.Descriptor.Digest
			got = append(got, after.String())
			if r.Repository != "app" || r.Subject != subject || r.Tag != "" {
				t.Errorf("a referrer is %+v", r)
			}
		}
		if !more {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("referrers are %v, want %v", got, want)
	}
	stored, err := s.Get(t.Context(), &Referrer{Subject: subject, Repository: "app", Tag: tag.Tag})
	if err != nil || stored == nil || stored.Tag != tag.Tag || stored.Repository != "app" {
		t.Errorf("the tag's is %+v, %v", stored, err)
	}
	if subjects := 0; s.EachSubject(t.Context(), func(d digest.Digest) error {
		subjects++
		if d != subject {
			t.Errorf("subject %s", d)
		}
		return nil
	}) != nil || subjects != 1 {
		t.Errorf("%d subjects", subjects)
	}
	if changed, err := s.Remove(t.Context(), tag); err != nil || !changed {
		t.Errorf("removal: %t, %v", changed, err)
	}
	if stored, err := s.Get(t.Context(), tag); err != nil || stored != nil {
		t.Errorf("after its removal: %+v, %v", stored, err)
	}
}
