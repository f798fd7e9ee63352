package streamrest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"tallyman/storage/memory"
)

func TestListImageStreamTags(t *testing.T) {
	h, _, b := newTaggedHouse(t)
	h.wantLists(h.streamTags, map[string]listing{
		"all":                        {"", "", "default/app:v1 team-x/app:v1 team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 0},
		"all, a page at a time":      {"", "", "default/app:v1 team-x/app:v1 team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 2},
		"of a namespace":             {"team", "", "team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 0},
		"of a namespace, by pages":   {"team", "", "team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 1},
		"by image":                   {"team", "image=" + b.String(), "team/app:v2", 0},
		"by name":                    {"team", "metadata.name=app:v1", "team/app:v1", 0},
		"by the name of one deleted": {"team", "metadata.name=app:gone", "", 0},
		"of a namespace without any": {"none", "", "", 0},
	})
}

func TestGetImageStreamTag(t *testing.T) {
	h, _, b := newTaggedHouse(t)
	tag := h.get(h.streamTags, "team", "app:v2").(*imagev1.ImageStreamTag)
	record := h.get(h.tags, "team", "app:v2").(*imagev1.ImageTag)
	reference := "host:5000/team/app@" + b.String()
	if tag.Image.Name != b.String() || tag.Image.DockerImageReference != reference || tag.UID != record.UID || !tag.CreationTimestamp.Equal(&record.Status.Items[0].Created) || tag.Image.DockerImageManifest != "" || len(tag.Image.DockerImageMetadata.Raw) == 0 {
		t.Errorf("%+v", tag)
	}
	if len(tag.Annotations) > 0 || tag.Tag != nil {
		t.Errorf("annotations %v, tag %v", tag.Annotations, tag.Tag)
	}
	if tag.ResourceVersion < record.ResourceVersion {
		t.Errorf("resourceVersion %s, that of its record is %s", tag.ResourceVersion, record.ResourceVersion)
	}
	for name, refused := range map[string]func(error) bool{"app:none": apierrors.IsNotFound, "app:gone": apierrors.IsNotFound, "none:v1": apierrors.IsNotFound, "app": apierrors.IsBadRequest, "app:": apierrors.IsBadRequest, "a:b:c": apierrors.IsBadRequest} {
		if _, err := h.streamTags.Get(h.of("team"), name, &metav1.GetOptions{}); !refused(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNothingOfOthers: an Image that several repositories hold shows each the part that is its own.
func TestNothingOfOthers(t *testing.T) {
	h := newHouse(t)
	h.push("secret/other:v9", "a")
	h.push("team/app:v1", "a")
	h.sign("secret/other", "a", "signed elsewhere")
	h.sign("team/app", "a", "signed here")
	for name, obj := range map[string]runtime.Object{
		"imagestreamtag":   h.get(h.streamTags, "team", "app:v1"),
		"imagetag":         h.get(h.tags, "team", "app:v1"),
		"imagestream":      h.get(h.streams, "team", "app"),
		"imagestreamimage": h.get(h.Resources.images, "team", "app@sha256:"),
	} {
		encoded, err := runtime.Encode(jsonCodec, obj)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(encoded), "secret") || strings.Contains(string(encoded), "v9") {
			t.Errorf("%s tells of another repository: %s", name, encoded)
		}
	}
	tag := h.get(h.streamTags, "team", "app:v1").(*imagev1.ImageStreamTag)
	if len(tag.Image.Signatures) != 1 || string(tag.Image.Signatures[0].Content) != "signed here" {
		t.Errorf("signatures %+v", tag.Image.Signatures)
	}
	if got := tag.Image.Annotations["tallyman.dev/repositories"] + " " + tag.Image.Annotations["tallyman.dev/tags"]; got != "team/app team/app:v1" {
		t.Errorf("repositories and tags %s", got)
	}
}

// TestWatchImageStreamTags: a change of any part is one event of each tag that shows it, and of no other.
func TestWatchImageStreamTags(t *testing.T) {
	t.Run("with the index", func(t *testing.T) { watchImageStreamTags(t, newHouse(t)) })
	t.Run("without", func(t *testing.T) { watchImageStreamTags(t, newHouseOn(t, memory.New(memory.Options{}))) })
}

func watchImageStreamTags(t *testing.T, h *house) {
	h.push("team/app:v1", "a")
	_, revision := h.list(h.of("team"), h.streamTags, &internalversion.ListOptions{})
	w := h.watch(h.of("team"), h.streamTags, &internalversion.ListOptions{ResourceVersion: revision})
	expect := func(step string, want ...string) {
		t.Helper()
		var got []string
		for range want {
			kind, obj := w.next()
			tag, ok := obj.(*imagev1.ImageStreamTag)
			if !ok {
				t.Fatalf("%s: %s %v", step, kind, obj)
			}
			got = append(got, fmt.Sprint(kind, " ", tag.Name, " ", tag.Image.Annotations["content"], tag.Image.Labels["label"]))
			if stored, err := h.streamTags.Get(h.of("team"), tag.Name, &metav1.GetOptions{}); err == nil && stored.(*imagev1.ImageStreamTag).ResourceVersion != tag.ResourceVersion {
				t.Errorf("%s: %s has resourceVersion %s, and it is %s", step, tag.Name, tag.ResourceVersion, stored.(*imagev1.ImageStreamTag).ResourceVersion)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", step, got, want)
		}
	}
	h.push("team/app:v2", "a") // on the Image that v1 has: its list of tags is another one
	expect("a push of the same", "ADDED app:v2 ", "MODIFIED app:v1 ")
	h.push("secret/other:v9", "a") // changes the Image, and nothing that shows
	h.label("a", "x")
	expect("a label", "MODIFIED app:v1 x", "MODIFIED app:v2 x")
	h.push("team/app:v2", "b")
	expect("a move", "MODIFIED app:v1 x", "MODIFIED app:v2 ")
	h.untag("team/app:v2")
	expect("an untag", "DELETED app:v2 ")
	h.sign("secret/other", "a", "signed elsewhere")
	h.sign("team/app", "a", "signed here")
	expect("a signature", "MODIFIED app:v1 x")
}

// TestSharedRevision: the events of tags that share a revision all come, also to a watch that began before.
func TestSharedRevision(t *testing.T) {
	h := newHouse(t)
	for n := range 5 {
		h.push(fmt.Sprint("team/app:v", n), "a")
	}
	_, revision := h.list(h.of("team"), h.streamTags, &internalversion.ListOptions{})
	early := h.watch(h.of("team"), h.streamTags, &internalversion.ListOptions{ResourceVersion: revision})
	h.label("a", "x")
	h.push("team/app:last", "b")
	late := h.watch(h.of("team"), h.streamTags, &internalversion.ListOptions{ResourceVersion: revision})
	broken := h.watch(h.of("team"), h.streamTags, &internalversion.ListOptions{ResourceVersion: h.get(h.streamTags, "team", "app:v0").(*imagev1.ImageStreamTag).ResourceVersion})
	for name, w := range map[string]*watching{"early": early, "late": late, "after one of them": broken} {
		var got []string
		for range 6 {
			_, obj := w.next()
			tag := obj.(*imagev1.ImageStreamTag)
			got = append(got, tag.Name+tag.Image.Labels["label"])
		}
		if want := "app:v0x app:v1x app:v2x app:v3x app:v4x app:last"; strings.Join(got, " ") != want {
			t.Errorf("%s: %s, want %s", name, strings.Join(got, " "), want)
		}
	}
}
