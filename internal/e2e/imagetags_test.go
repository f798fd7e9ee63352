package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	imageclient "github.com/openshift/client-go/image/clientset/versioned/typed/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"tallyman/storage/redis/redistest"
)

// tags returns a client of the image tags in a namespace.
func (s *server) tags(namespace string) imageclient.ImageTagInterface {
	return s.client().ImageTags(namespace)
}

// TestImageTags: a tag is an object, with its history, under the name and the namespace of its
// repository, for kubectl and for the typed client.
func TestImageTags(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func() []*server{
		"bolt": func() []*server { return []*server{startServer(t)} },
		"redis": func() []*server {
			return startReplicas(t, 2, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))
		},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := start()
			first, last := replicas[0], replicas[len(replicas)-1]
			one, two := pushSmallImage(first, "team/app/base", "one"), pushSmallImage(first, "team/app/base", "two")
			pushSmallImage(first, "app", "three")
			tag, err := last.tags("team").Get(t.Context(), "app..base:latest", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			items := tag.Status.Items
			if len(items) != 2 || items[0].Image != two || items[1].Image != one || items[0].Generation != 2 || items[0].Created.Before(&items[1].Created) || !strings.HasSuffix(items[0].DockerImageReference, "/team/app/base@"+two) {
				t.Errorf("the history is %+v", items)
			}
			if tag.Image == nil || tag.Image.Name != two || tag.Annotations["tallyman.dev/repository"] != "team/app/base" {
				t.Errorf("the tag is of %s, with the Image %v", tag.Annotations["tallyman.dev/repository"], tag.Image)
			}
			for args, want := range map[string]string{
				"get imagetags -A --no-headers -o custom-columns=:metadata.namespace,:metadata.name": "default app:latest team app..base:latest",
				"get imagetags -n team --no-headers --field-selector image=" + two:                   "app..base:latest Push image/" + two + " 2",
				"get imagetag -n default app:latest -o jsonpath={.status.items[0].generation}":       "1",
				"get imagetags -n team --field-selector deleted=true -o jsonpath={.items}":           "[]",
			} {
				out := strings.Join(strings.Fields(last.kubectl(strings.Fields(args)...)), " ")
				if !strings.HasPrefix(out, want) {
					t.Errorf("kubectl %s: %q, want %q", args, out, want)
				}
			}
			if err := last.tags("team").Delete(t.Context(), tag.Name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
				t.Errorf("a deletion in a dry run: %v", err)
			}
			if got := first.request(http.MethodHead, "/v2/team/app/base/manifests/latest", "", http.Header{"Accept": {"application/vnd.oci.image.manifest.v1+json"}}); got.code != http.StatusOK {
				t.Errorf("after a dry run the registry answers %d", got.code)
			}
			if err := last.tags("team").Delete(t.Context(), tag.Name, metav1.DeleteOptions{}); err != nil {
				t.Errorf("a deletion: %v", err)
			}
			if got := first.request(http.MethodHead, "/v2/team/app/base/manifests/latest", "", http.Header{"Accept": {"application/vnd.oci.image.manifest.v1+json"}}); got.code != http.StatusNotFound {
				t.Errorf("after the deletion the registry answers %d", got.code)
			}
			if _, err := last.tags("team").Get(t.Context(), tag.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Errorf("after the untag: %v", err)
			}
			gone, err := last.tags("team").List(t.Context(), metav1.ListOptions{FieldSelector: "deleted=true"})
			if err != nil || len(gone.Items) != 1 || len(gone.Items[0].Status.Items) != 2 {
				t.Errorf("deleted tags: %+v, %v", gone, err)
			}
		})
	}
}

// TestTagsOfManifests: tags go with their manifest, all in one commit, and a manifest stays as long
// as one repository holds it.
func TestTagsOfManifests(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	_, manifest := smallImage("shared")
	name := ""
	for _, repository := range []string{"team/app", "other/app"} {
		name = pushSmallImage(s, repository, "shared")
		for n := range 50 {
			if got := s.putManifest(repository, fmt.Sprint("v", n), "application/vnd.oci.image.manifest.v1+json", manifest); got.code != http.StatusCreated {
				t.Fatal(got)
			}
		}
	}
	client, err := dynamic.NewForConfig(s.restConfig()) // OpenShift's client cannot watch them
	if err != nil {
		t.Fatal(err)
	}
	events, err := client.Resource(imagev1.GroupVersion.WithResource("imagetags")).Namespace("team").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	s.deleteManifest("team/app", name)
	deleted := 0
	for deleted < 51 {
		select {
		case event := <-events.ResultChan():
			if event.Type == watch.Deleted {
				deleted++
			}
		case <-time.After(time.Minute):
			t.Fatalf("%d tags were deleted", deleted)
		}
	}
	image := s.image(name)
	if image.Annotations["tallyman.dev/repositories"] != "other/app" || strings.Contains(image.Annotations["tallyman.dev/tags"], "team/app") || strings.Count(image.Annotations["tallyman.dev/tags"], ",") != 50 {
		t.Errorf("the Image is in %s, %s", image.Annotations["tallyman.dev/repositories"], image.Annotations["tallyman.dev/tags"])
	}
	s.deleteManifest("other/app", name)
	if _, err := s.images().Get(t.Context(), name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("nobody holds it: %v", err)
	}
	if left, err := s.tags("").List(t.Context(), metav1.ListOptions{}); err != nil || len(left.Items) > 0 {
		t.Errorf("%d tags are left, %v", len(left.Items), err)
	}
}

// TestTagsInOrder: the history of a tag has the pushes in the order in which they were answered.
func TestTagsInOrder(t *testing.T) {
	t.Parallel()
	replicas := startReplicas(t, 3, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))
	var want []string
	for n := range 30 {
		want = append([]string{pushSmallImage(replicas[n%3], "team/app", fmt.Sprint(n))}, want...)
	}
	tag, err := replicas[0].tags("team").Get(t.Context(), "app:latest", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, item := range tag.Status.Items {
		got = append(got, item.Image)
	}
	if strings.Join(got, " ") != strings.Join(want[:20], " ") || tag.Status.Items[0].Generation != 30 {
		t.Errorf("the history is %v, want %v", got, want[:20])
	}
	var pushers []struct{ Client string }
	if err := json.Unmarshal([]byte(tag.Annotations["tallyman.dev/pushers"]), &pushers); err != nil || len(pushers) != 20 || !strings.HasPrefix(pushers[0].Client, "Go-http-client") {
		t.Errorf("the pushers are %+v, %v", pushers, err)
	}
}
