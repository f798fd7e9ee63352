package rest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"

	"tallyman/imageapi/records"
	"tallyman/storage"
	"tallyman/storage/memory"
)

// taggedHouse has tags of several repositories, one of which is deleted.
type taggedHouse struct {
	t       *testing.T
	backend storage.Backend
	records *records.Store
	tags    *ImageTags
}

func newTaggedHouse(t *testing.T) *taggedHouse {
	t.Helper()
	backend := memory.New(memory.Options{})
	images, err := NewImages(backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	tags, err := NewImageTags(backend, images)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tags.Close)
	h := &taggedHouse{t, backend, records.New(records.Options{Backend: backend}), tags}
	for _, full := range []string{"team/app:v1", "team/app:v2", "team/app-x:v1", "team/app/base:v1", "team-x/app:v1", "app:v1"} {
		h.set(full, "sha256:a")
	}
	h.set("team/app:gone", "sha256:a")
	h.set("team/app:gone", "")
	h.set("team/app:v2", "sha256:b")
	return h
}

func (h *taggedHouse) set(full, to string) {
	h.t.Helper()
	repository, tag, _ := strings.Cut(full, ":")
	b := &storage.Batch{}
	_, err := h.records.SetTag(h.t.Context(), b, records.TagChange{Repository: repository, Tag: tag, To: digest.Digest(to)})
	if err == nil {
		_, err = b.Commit(h.t.Context(), h.backend)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestListImageTags(t *testing.T) {
	h := newTaggedHouse(t)
	for name, test := range map[string]struct {
		namespace, selector, want string
		limit                     int64
	}{
		"all":                        {"", "", "default/app:v1 team-x/app:v1 team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 0},
		"all, a page at a time":      {"", "", "default/app:v1 team-x/app:v1 team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 2},
		"of a namespace":             {"team", "", "team/app:v1 team/app:v2 team/app-x:v1 team/app..base:v1", 0},
		"by image":                   {"team", "image=sha256:b", "team/app:v2", 0},
		"by name":                    {"team", "metadata.name=app:v1", "team/app:v1", 0},
		"deleted":                    {"team", "deleted=true", "team/app:gone", 0},
		"deleted, of another":        {"default", "deleted=true", "", 0},
		"not deleted":                {"default", "deleted=false", "default/app:v1", 0},
		"of a namespace without any": {"none", "", "", 0},
	} {
		ctx := request.WithNamespace(t.Context(), test.namespace)
		selector, err := fields.ParseSelector(test.selector)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for options := (&internalversion.ListOptions{Limit: test.limit, FieldSelector: selector}); ; {
			obj, err := h.tags.List(ctx, options)
			if err != nil {
				t.Fatal(name, err)
			}
			list := obj.(*imagev1.ImageTagList)
			for _, tag := range list.Items {
				got = append(got, tag.Namespace+"/"+tag.Name)
			}
			if options.Continue = list.Continue; options.Continue == "" {
				break
			}
		}
		if all := strings.Join(got, " "); all != test.want {
			t.Errorf("%s: %s, want %s", name, all, test.want)
		}
	}
}

func TestGetImageTag(t *testing.T) {
	h := newTaggedHouse(t)
	for name, refused := range map[string]func(error) bool{
		"app:v2": nil, "app..base:v1": nil, "app:none": apierrors.IsNotFound, "app:gone": apierrors.IsNotFound, "app": apierrors.IsBadRequest, "app!v1": apierrors.IsBadRequest, ":v1": apierrors.IsBadRequest,
	} {
		obj, err := h.tags.Get(request.WithNamespace(t.Context(), "team"), name, &metav1.GetOptions{})
		if refused != nil && !refused(err) || refused == nil && (err != nil || obj.(*imagev1.ImageTag).Name != name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.tags.Get(t.Context(), "app:v1", &metav1.GetOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("without a namespace: %v", err)
	}
}

// TestWatchImageTags: a tag that is deleted and comes back is another object.
func TestWatchImageTags(t *testing.T) {
	h := newTaggedHouse(t)
	ctx := request.WithNamespace(t.Context(), "team")
	obj, err := h.tags.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	events, err := h.tags.Watch(ctx, &internalversion.ListOptions{ResourceVersion: obj.(*imagev1.ImageTagList).ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	h.set("team/app:v1", "sha256:b")
	h.set("other/app:v1", "sha256:b")
	h.set("team/app:v1", "")
	h.set("team/app:v1", "sha256:c")
	var got []string
	uids := map[string]bool{}
	for len(got) < 3 {
		event := <-events.ResultChan()
		tag, ok := event.Object.(*imagev1.ImageTag)
		if !ok {
			decoded, isEncoded := event.Object.(interface{ GetObject() runtime.Object })
			if !isEncoded || event.Type == watch.Error {
				t.Fatalf("%s %T", event.Type, event.Object)
			}
			tag = decoded.GetObject().(*imagev1.ImageTag)
		}
		uids[string(tag.UID)] = true
		got = append(got, fmt.Sprint(event.Type, " ", tag.Namespace, "/", tag.Name, " ", records.PointsTo(tag)))
	}
	if want := []string{"MODIFIED team/app:v1 sha256:b", "DELETED team/app:v1 sha256:b", "ADDED team/app:v1 sha256:c"}; strings.Join(got, "|") != strings.Join(want, "|") || len(uids) != 2 {
		t.Errorf("%q, want %q, with %d uids", got, want, len(uids))
	}
	deleted, err := fields.ParseSelector("deleted=true")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.tags.Watch(ctx, &internalversion.ListOptions{FieldSelector: deleted}); !apierrors.IsBadRequest(err) {
		t.Errorf("a watch of deleted tags: %v", err)
	}
}

func TestImageTagTable(t *testing.T) {
	h := newTaggedHouse(t)
	obj, err := h.tags.List(request.WithNamespace(t.Context(), "team"), &internalversion.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	table, err := h.tags.ConvertToTable(t.Context(), obj, &metav1.TableOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if cells := fmt.Sprint(table.Rows[1].Cells); !strings.HasPrefix(cells, "[app:v2 sha256:b ") || len(table.ColumnDefinitions) != len(table.Rows[1].Cells) {
		t.Errorf("%v under %v", cells, table.ColumnDefinitions)
	}
}
