package streamrest

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/records"
	"tallyman/imageapi/streams"
	"tallyman/storage"
)

// tag records tags of a repository alone.
func (h *house) tag(repository string, number int, to digest.Digest) {
	h.t.Helper()
	kept := h.catalog.Records()
	for n := range number {
		batch := &storage.Batch{}
		_, err := kept.SetTag(h.t.Context(), batch, records.TagChange{Repository: repository, Tag: fmt.Sprintf("v%05d", n), To: to, Reference: "host:5000/" + repository + "@" + to.String()})
		if err == nil {
			_, err = batch.Commit(h.t.Context(), h.backend)
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// BenchmarkTags is the cost of reads and watches of a repository, by the number of its tags.
func BenchmarkTags(b *testing.B) {
	for _, number := range []int{10, 1000, 10_000} {
		h := newHouse(b)
		image := h.push("team/app:latest", "a")
		h.tag("team/app", number, image)
		b.Run(fmt.Sprint("imagestreamimage/", number), func(b *testing.B) {
			for b.Loop() {
				h.get(h.Resources.images, "team", "app@"+image.String())
			}
		})
		b.Run(fmt.Sprint("imagestream/", number), func(b *testing.B) {
			for b.Loop() {
				h.get(h.streams, "team", "app")
			}
		})
		b.Run(fmt.Sprint("imagestreamtag/", number), func(b *testing.B) {
			for b.Loop() {
				h.get(h.streamTags, "team", "app:latest")
			}
		})
		b.Run(fmt.Sprint("page of 20 imagestreamtags/", number), func(b *testing.B) {
			for b.Loop() {
				if _, err := h.streamTags.List(h.of("team"), &internalversion.ListOptions{Limit: 20}); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("tag that moves by its spec/", number), func(b *testing.B) {
			h.push("team/app:one", "one")
			h.push("team/app:two", "two")
			for i := 0; b.Loop(); i++ {
				tag := streamTag("app:moved", streams.KindImageStreamTag+" "+[]string{"one", "two"}[i%2])
				if _, _, err := h.put(h.streamTags, "team", "app:moved", tag); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprint("push that a watch of imagestreams sees/", number), func(b *testing.B) {
			_, revision := h.list(h.of("team"), h.streams, &internalversion.ListOptions{})
			w := h.watch(h.of("team"), h.streams, &internalversion.ListOptions{ResourceVersion: revision})
			defer w.Stop()
			for i := 0; b.Loop(); i++ {
				h.push("team/app:moving", fmt.Sprint("content ", i))
				w.next()
			}
		})
		b.Run(fmt.Sprint("push that a watch of imagestreamtags sees/", number), func(b *testing.B) {
			list, err := h.streamTags.store.List(h.of("team"), &internalversion.ListOptions{Limit: 1})
			if err != nil {
				b.Fatal(err)
			}
			accessor := list.(metav1.ListInterface)
			w := h.watch(h.of("team"), h.streamTags, &internalversion.ListOptions{ResourceVersion: accessor.GetResourceVersion()})
			defer w.Stop()
			for i := 0; b.Loop(); i++ {
				h.push("team/app:moving", fmt.Sprint("content ", i))
				w.next()
			}
		})
	}
}
