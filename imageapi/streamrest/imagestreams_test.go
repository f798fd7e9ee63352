package streamrest

import (
	"fmt"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/imageapi"
	"tallyman/imageapi/streams"
)

var jsonCodec = imageapi.Codecs.LegacyCodec(imagev1.GroupVersion)

// tagsOf prints the tags of a stream, each with the number of its items.
func tagsOf(obj runtime.Object) string {
	var all []string
	for _, tag := range obj.(*imagev1.ImageStream).Status.Tags {
		all = append(all, fmt.Sprintf("%s#%d", tag.Tag, len(tag.Items)))
	}
	return strings.Join(all, " ")
}

func TestListImageStreams(t *testing.T) {
	h, _, b := newTaggedHouse(t)
	h.wantLists(h.streams, map[string]listing{
		"all":                          {"", "", "default/app team-x/app team/app team/app-x team/app..base", 0},
		"all, a page at a time":        {"", "", "default/app team-x/app team/app team/app-x team/app..base", 2},
		"of a namespace":               {"team", "", "team/app team/app-x team/app..base", 0},
		"by name":                      {"team", "metadata.name=app", "team/app", 0},
		"by the repository":            {"team", "status.dockerImageRepository=host:5000/team/app/base", "team/app..base", 0},
		"by the repository of another": {"team", "spec.dockerImageRepository=x", "", 0},
	})
	stream := h.get(h.streams, "team", "app").(*imagev1.ImageStream)
	if tagsOf(stream) != "v1#1 v2#2" || stream.Status.Tags[1].Items[0].Image != b.String() || stream.Status.DockerImageRepository != "host:5000/team/app" || stream.UID == "" || stream.Generation != 1 {
		t.Errorf("%+v", stream)
	}
	for name, refused := range map[string]func(error) bool{"none": apierrors.IsNotFound, "app:v1": apierrors.IsBadRequest, "a/b": apierrors.IsBadRequest} {
		if _, err := h.streams.Get(h.of("team"), name, &metav1.GetOptions{}); !refused(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWatchImageStreams: each push is one event, with the tags as they were then, and the resourceVersion
// of the stream never goes back.
func TestWatchImageStreams(t *testing.T) {
	h := newHouse(t)
	_, revision := h.list(h.of("team"), h.streams, &internalversion.ListOptions{})
	w := h.watch(h.of("team"), h.streams, &internalversion.ListOptions{ResourceVersion: revision})
	h.push("team/app:v1", "a")
	h.push("team/app:v2", "a")
	h.push("other/app:v1", "a")
	h.push("team/app:v2", "b")
	h.untag("team/app:v1")
	h.label("a", "x") // shows on no stream
	h.push("team/next:v1", "a")
	var got []string
	last := ""
	for range 5 {
		kind, obj := w.next()
		stream := obj.(*imagev1.ImageStream)
		got = append(got, fmt.Sprintf("%s %s %s", kind, stream.Name, tagsOf(stream)))
		if stream.ResourceVersion <= last {
			t.Errorf("resourceVersion %s after %s", stream.ResourceVersion, last)
		}
		last = stream.ResourceVersion
	}
	want := []string{"ADDED app v1#1", "MODIFIED app v1#1 v2#1", "MODIFIED app v1#1 v2#2", "MODIFIED app v2#2", "ADDED next v1#1"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("%q, want %q", got, want)
	}
	if stream := h.get(h.streams, "team", "next").(*imagev1.ImageStream); stream.ResourceVersion != last {
		t.Errorf("resourceVersion %s, its event had %s", stream.ResourceVersion, last)
	}
}

func TestGetImageStreamImage(t *testing.T) {
	h, a, b := newTaggedHouse(t)
	common := 0
	for a.Encoded()[common] == b.Encoded()[common] {
		common++
	}
	for name, test := range map[string]struct {
		image   string
		refused func(error) bool
	}{
		"app@" + a.String():                     {a.String(), nil},
		"app@" + b.String():                     {b.String(), nil},
		"app@" + b.String()[:20]:                {b.String(), nil},
		"app@" + b.Encoded()[:12]:               {b.String(), nil},
		"app-x@" + b.String():                   {"", apierrors.IsNotFound}, // which the repository does not hold
		"app@" + a.Encoded()[:common]:           {"", apierrors.IsBadRequest},
		"app@sha256:" + strings.Repeat("f", 64): {"", apierrors.IsNotFound},
		"none@" + a.String():                    {"", apierrors.IsNotFound},
		"app":                                   {"", apierrors.IsBadRequest},
		"app@":                                  {"", apierrors.IsBadRequest},
		"@" + a.String():                        {"", apierrors.IsBadRequest},
	} {
		obj, err := h.Resources.images.Get(h.of("team"), name, &metav1.GetOptions{})
		switch {
		case test.refused != nil && !test.refused(err):
			t.Errorf("%s: %v", name, err)
		case test.refused == nil && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.refused == nil && (obj.(*imagev1.ImageStreamImage).Image.Name != test.image || obj.(*imagev1.ImageStreamImage).Name != name):
			t.Errorf("%s: %+v", name, obj)
		}
	}
}

// TestWatchManyTags: the events of a stream with many tags have what a GET at the same revision has, also
// where the tags are remembered from the events before.
func TestWatchManyTags(t *testing.T) {
	h := newHouse(t)
	h.tag("team/app", 300, h.push("team/app:latest", "a"))
	options := h.options("metadata.name=app", "")
	_, options.ResourceVersion = h.list(h.of("team"), h.streams, h.options("metadata.name=app", ""))
	w := h.watch(h.of("team"), h.streams, options)
	for n := range 40 {
		switch n % 4 {
		case 0:
			h.push(fmt.Sprint("team/app:new", n), "a")
		case 1:
			h.push(fmt.Sprintf("team/app:v%05d", n), fmt.Sprint("content ", n))
		case 2:
			h.untag(fmt.Sprintf("team/app:v%05d", 100+n))
		case 3:
			tag := streamTag("app:spec", streams.KindImageStreamTag+fmt.Sprintf(" v%05d", 200+n))
			if _, _, err := h.put(h.streamTags, "team", "app:spec", tag); err != nil {
				t.Fatal(err)
			}
		}
		fresh, err := newImageStreams(h.backend, hosts, nil, h.streams.store.CreateStrategy.(streamStrategy), h) // it remembers nothing
		if err != nil {
			t.Fatal(err)
		}
		want := h.get(fresh, "team", "app").(*imagev1.ImageStream)
		fresh.Close()
		for {
			_, obj := w.next()
			if got := obj.(*imagev1.ImageStream); got.ResourceVersion == want.ResourceVersion {
				if !equality.Semantic.DeepEqual(got, want) {
					t.Fatalf("change %d: %s, want %s", n, h.shows(got), h.shows(want))
				}
				break
			}
		}
		if got := h.get(h.streams, "team", "app"); !equality.Semantic.DeepEqual(got, want) {
			t.Fatalf("change %d: got %s, want %s", n, h.shows(got), h.shows(want))
		}
	}
}

// TestListManyTags: a list has what each GET has, wherever the streams are whose tags are remembered, and does not
// read those tags again.
func TestListManyTags(t *testing.T) {
	h := newHouse(t)
	for _, repository := range []string{"large", "more", "most"} {
		h.tag("team/"+repository, 300, h.push("team/"+repository+":latest", "a"))
	}
	for _, repository := range []string{"another", "huge", "last", "small", "zero"} {
		h.push("team/"+repository+":v1", repository)
	}
	fresh := func() *imageStreams {
		r, err := newImageStreams(h.backend, hosts, nil, h.streams.store.CreateStrategy.(streamStrategy), h)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		return r
	}
	h.get(h.streams, "team", "more") // one in the middle is remembered before the others
	for round, change := range []func(){func() {}, func() { h.push("team/more:new", "b") }, func() { h.push("team/small:v2", "b"); h.untag("team/large:v00007") }} {
		change()
		got, _ := h.list(h.of("team"), h.streams, h.options("", ""))
		want, _ := h.list(h.of("team"), fresh(), h.options("", ""))
		if len(got) != 8 || !equality.Semantic.DeepEqual(got, want) {
			t.Fatalf("round %d: %d streams, not those that are listed for the first time", round, len(got))
		}
	}
	remembered := testing.AllocsPerRun(3, func() { h.list(h.of("team"), h.streams, h.options("", "")) })
	first := testing.AllocsPerRun(1, func() { h.list(h.of("team"), fresh(), h.options("", "")) })
	if remembered > first/2 {
		t.Errorf("a list takes %.0f allocations with the tags remembered, and %.0f without", remembered, first)
	}
}
