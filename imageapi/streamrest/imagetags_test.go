package streamrest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/imageapi/records"
)

// newTaggedHouse has tags of several repositories, one of which is deleted.
func newTaggedHouse(t *testing.T) (h *house, a, b digest.Digest) {
	t.Helper()
	h = newHouse(t)
	for _, full := range []string{"team/app:v1", "team/app:v2", "team/app-x:v1", "team/app/base:v1", "team-x/app:v1", "app:v1", "team/app:gone"} {
		a = h.push(full, "a")
	}
	h.untag("team/app:gone")
	return h, a, h.push("team/app:v2", "b")
}

func TestListImageTags(t *testing.T) {
	h, _, b := newTaggedHouse(t)
	h.wantLists(h.tags, map[string]listing{
		"all":                        {"", "", "default/app:v1 team-x/app:v1 team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 0},
		"all, a page at a time":      {"", "", "default/app:v1 team-x/app:v1 team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 2},
		"of a namespace":             {"team", "", "team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 0},
		"by image":                   {"team", "image=" + b.String(), "team/app:v2", 0},
		"by name":                    {"team", "metadata.name=app:v1", "team/app:v1", 0},
		"deleted":                    {"team", "deleted=true", "team/app:gone", 0},
		"deleted, of another":        {"default", "deleted=true", "", 0},
		"not deleted":                {"default", "deleted=false", "default/app:v1", 0},
		"of a namespace without any": {"none", "", "", 0},
	})
}

func TestGetImageTag(t *testing.T) {
	h, _, b := newTaggedHouse(t)
	for name, refused := range map[string]func(error) bool{
		"app:v2": nil, "app..base:v1": nil, "app:none": apierrors.IsNotFound, "app:gone": apierrors.IsNotFound, "app": apierrors.IsBadRequest, "app!v1": apierrors.IsBadRequest, ":v1": apierrors.IsBadRequest,
	} {
		obj, err := h.tags.Get(h.of("team"), name, &metav1.GetOptions{})
		if refused != nil && !refused(err) || refused == nil && (err != nil || obj.(*imagev1.ImageTag).Name != name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if tag := h.get(h.tags, "team", "app:v2").(*imagev1.ImageTag); tag.Image == nil || tag.Image.Name != b.String() {
		t.Errorf("its Image is %v", tag.Image)
	}
	if _, err := h.tags.Get(t.Context(), "app:v1", &metav1.GetOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("without a namespace: %v", err)
	}
}

// TestWatchImageTags: a tag that is deleted and comes back is another object.
func TestWatchImageTags(t *testing.T) {
	h, _, b := newTaggedHouse(t)
	_, revision := h.list(h.of("team"), h.tags, h.options("", ""))
	events := h.watch(h.of("team"), h.tags, &internalversion.ListOptions{ResourceVersion: revision})
	h.push("team/app:v1", "b")
	h.push("other/app:v1", "b")
	h.untag("team/app:v1")
	c := h.push("team/app:v1", "c")
	var got []string
	uids := map[string]bool{}
	for len(got) < 3 {
		kind, obj := events.next()
		tag := obj.(*imagev1.ImageTag)
		uids[string(tag.UID)] = true
		got = append(got, fmt.Sprint(kind, " ", tag.Namespace, "/", tag.Name, " ", records.PointsTo(tag)))
	}
	want := []string{"MODIFIED team/app:v1 " + b.String(), "DELETED team/app:v1 " + b.String(), "ADDED team/app:v1 " + c.String()}
	if strings.Join(got, "|") != strings.Join(want, "|") || len(uids) != 2 {
		t.Errorf("%q, want %q, with %d uids", got, want, len(uids))
	}
	if _, err := h.tags.Watch(h.of("team"), h.options("deleted=true", "")); !apierrors.IsBadRequest(err) {
		t.Errorf("a watch of deleted tags: %v", err)
	}
}
