package referrers

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// TestBounds: a referrer keeps a bounded part of its descriptor, and of the index of a tag.
func TestBounds(t *testing.T) {
	s := NewStore(memory.New(memory.Options{}))
	subject := digest.FromString("subject")
	r := &Referrer{Subject: subject, Repository: "app", Tag: "sha256-x", Descriptor: imagespec.Descriptor{
		Digest: subject, Annotations: map[string]string{"a": strings.Repeat("x", MaxAnnotationBytes-10), "b": "too much by now", "c": "fits"},
	}}
	for range 2 {
		for i := range MaxListed + 7 {
			d := imagespec.Descriptor{Digest: digest.FromString(fmt.Sprint(i)), Annotations: map[string]string{"a": strings.Repeat("x", 5<<10)}}
			r.Manifests = append(r.Manifests, d)
		}
	}
	if _, err := commit(t, s, s.Add, r); err != nil {
		t.Fatal(err)
	}
	stored, err := s.Get(t.Context(), r)
	if err != nil || stored == nil {
		t.Fatal(stored, err)
	}
	if kept := stored.Descriptor.Annotations; len(kept) != 2 || kept["a"] == "" || kept["c"] != "fits" {
		t.Errorf("%d annotations, c is %q", len(kept), kept["c"])
	}
	listed := stored.Manifests
	if len(listed) != MaxListed || !slices.IsSortedFunc(listed, func(a, b imagespec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) }) {
		t.Errorf("%d manifests", len(listed))
	}
	for i := range listed {
		if len(listed[i].Annotations) > 0 || i > 0 && listed[i].Digest == listed[i-1].Digest {
			t.Fatalf("manifest %d is %+v", i, listed[i])
		}
	}
}

// counting counts the bytes of the values that are read.
type counting struct {
	storage.Backend
	bytes int
}

func (c *counting) Scan(ctx context.Context, req storage.ScanRequest) (*storage.ScanResult, error) {
	r, err := c.Backend.Scan(ctx, req)
	if err == nil {
		for i := range r.Entries {
			c.bytes += r.Entries[i].Value.Size()
		}
	}
	return r, err
}

// TestSeparateReads: a reader of signatures reads no annotations, and one of descriptors no
// signatures. Records of former versions, which are of one piece, are read all the same.
func TestSeparateReads(t *testing.T) {
	c := &counting{Backend: memory.New(memory.Options{})}
	s := NewStore(c)
	subject := digest.FromString("subject")
	signature := signatures.Signature{Type: "cosign", Content: []byte(strings.Repeat("s", 30<<10))}
	for i := range 20 {
		r := &Referrer{Subject: subject, Repository: "app", Descriptor: imagespec.Descriptor{
			Digest: digest.FromString(fmt.Sprint(i)), Annotations: map[string]string{"a": strings.Repeat("x", 40<<10)},
		}}
		if i == 7 {
			r.Signatures = []signatures.Signature{signature}
		}
		if _, err := commit(t, s, s.Add, r); err != nil {
			t.Fatal(err)
		}
	}
	former := &Referrer{Subject: subject, Repository: "old", Descriptor: imagespec.Descriptor{Digest: subject, Annotations: map[string]string{"of": "old"}}, Signatures: []signatures.Signature{signature}}
	body, err := json.Marshal(former)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(t.Context(), storage.Mutation{Key: former.Key(), Value: storage.Body(body)}); err != nil {
		t.Fatal(err)
	}
	c.bytes = 0
	var found []string
	if err := s.EachSigning(t.Context(), subject, Share{1 << 20, 1 << 30}, func(r *Referrer) {
		found = append(found, fmt.Sprint(r.Repository, len(r.Signatures[0].Content)))
	}); err != nil || !slices.Equal(found, []string{"app30720", "old30720"}) {
		t.Errorf("signatures of %v, %v", found, err)
	}
	if most := 2*41<<10 + 21*300; c.bytes > most {
		t.Errorf("%d bytes are read for signatures, more than %d", c.bytes, most)
	}
	c.bytes = 0
	page, more, err := s.List(t.Context(), subject, "app", "", 0)
	if err != nil || more || len(page) != 20 || len(page[0].Descriptor.Annotations) != 1 || c.bytes > 20*41<<10 {
		t.Errorf("%d descriptors, %d bytes, %v", len(page), c.bytes, err)
	}
	old, err := s.Get(t.Context(), former)
	if err != nil || old.Descriptor.Annotations["of"] != "old" || len(old.Signatures) != 1 {
		t.Errorf("a former record is %+v, %v", old, err)
	}
	if changed, err := commit(t, s, s.Add, former); err != nil || !changed {
		t.Errorf("written anew: %t, %v", changed, err)
	}
	if again, err := s.Get(t.Context(), former); err != nil || again.Descriptor.Annotations["of"] != "old" || len(again.Signatures) != 1 {
		t.Errorf("written anew it is %+v, %v", again, err)
	}
}

// TestShare: of a repository with many signatures only its share is read, and all of the others.
func TestShare(t *testing.T) {
	c := &counting{Backend: memory.New(memory.Options{})}
	s := NewStore(c)
	subject := digest.FromString("subject")
	for repository, n := range map[string]int{"app": 2, "evil": 400, "evil-too": 2, "evil/x": 2, "evilx": 2} {
		for i := range n {
			r := &Referrer{Subject: subject, Repository: repository, Signatures: []signatures.Signature{{Type: "cosign", Content: []byte(strings.Repeat("s", 10<<10))}}}
			r.Descriptor.Digest = digest.FromString(fmt.Sprint(repository, i))
			if i%2 == 0 {
				r.Tag = fmt.Sprint("tag", i)
			}
			if _, err := commit(t, s, s.Add, r); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, share := range []Share{{Count: 16, Bytes: 1 << 30}, {Count: 1 << 20, Bytes: 160 << 10}} {
		c.bytes = 0
		found := map[string]int{}
		if err := s.EachSigning(t.Context(), subject, share, func(r *Referrer) { found[r.Repository]++ }); err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{"app": 2, "evil": 16, "evil-too": 2, "evil/x": 2, "evilx": 2}; !maps.Equal(found, want) {
			t.Errorf("%+v: %v, want %v", share, found, want)
		}
		if most := 4 * signingPage * 15 << 10; c.bytes > most {
			t.Errorf("%+v: %d bytes are read, more than %d of %d", share, c.bytes, most, 408*14<<10)
		}
	}
}
