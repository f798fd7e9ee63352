package referrers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/storage"
	"tallyman/storage/memory"
)

// TestReferrers: pages of a repository's referrers of a subject, and of no other.
// commit makes one change in a commit of its own, and reports whether anything was to change.
func commit(t *testing.T, s *Store, change func(context.Context, *storage.Batch, *Referrer) error, r *Referrer) (changed bool, err error) {
	t.Helper()
	b := &storage.Batch{}
	if err := change(t.Context(), b, r); err != nil {
		return false, err
	}
	committed, err := b.Commit(t.Context(), s.backend)
	if err == nil && !committed {
		err = errors.New("a conflict")
	}
	return b.Changes(r.Key()), err
}

func TestReferrers(t *testing.T) {
	s := NewStore(memory.New(memory.Options{}))
	subject := digest.FromString("subject")
	add := func(repository, content string) digest.Digest {
		r := &Referrer{Subject: subject, Repository: repository, Descriptor: imagespec.Descriptor{Digest: digest.FromString(repository + content)}}
		if changed, err := commit(t, s, s.Add, r); err != nil || !changed {
			t.Fatal(changed, err)
		}
		if changed, err := commit(t, s, s.Add, r); err != nil || changed {
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
	if changed, err := commit(t, s, s.Add, tag); err != nil || !changed {
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
	if changed, err := commit(t, s, s.Remove, tag); err != nil || !changed {
		t.Errorf("removal: %t, %v", changed, err)
	}
	if stored, err := s.Get(t.Context(), tag); err != nil || stored != nil {
		t.Errorf("after its removal: %+v, %v", stored, err)
	}
}

// TestStamp: the stamp of a subject changes with its referrers that may have signatures, and with no
// others. A change that is prefetched, or made meanwhile, is a conflict.
func TestStamp(t *testing.T) {
	s := NewStore(memory.New(memory.Options{}))
	subject := digest.FromString("subject")
	manifest := &Referrer{Subject: subject, Repository: "app", Descriptor: imagespec.Descriptor{Digest: digest.FromString("a")}}
	signature := &Referrer{Subject: subject, Repository: "app", Tag: "sha256-" + subject.Encoded() + ".sig", Descriptor: imagespec.Descriptor{Digest: digest.FromString("b")}}
	list := &Referrer{Subject: subject, Repository: "app", Tag: "sha256-" + subject.Encoded(), Descriptor: imagespec.Descriptor{Digest: digest.FromString("c")}}
	last := int64(0)
	for _, step := range []struct {
		name    string
		change  func(context.Context, *storage.Batch, *Referrer) error
		of      *Referrer
		changes bool
	}{
		{"a manifest", s.Add, manifest, true},
		{"the same again", s.Add, manifest, false},
		{"a signature's tag", s.Add, signature, true},
		{"an index by tag", s.Add, list, false},
		{"the end of the index", s.Remove, list, false},
		{"the end of the tag", s.Remove, signature, true},
		{"the end of nothing", s.Remove, signature, false},
		{"the end of the manifest", s.Remove, manifest, true},
	} {
		if _, err := commit(t, s, step.change, step.of); err != nil {
			t.Fatal(err)
		}
		stamp, err := s.Stamp(t.Context(), subject)
		if err != nil || stamp > last != step.changes {
			t.Errorf("%s: the stamp goes from %d to %d, %v", step.name, last, stamp, err)
		}
		last = stamp
	}
	b := &storage.Batch{}
	if err := s.Add(t.Context(), b, manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := commit(t, s, s.Add, manifest); err != nil {
		t.Fatal(err)
	}
	if committed, err := b.Commit(t.Context(), s.backend); committed || err != nil {
		t.Errorf("after another change it was committed: %t, %v", committed, err)
	}
}
