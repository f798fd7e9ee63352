package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"tallyman/storage/redis/redistest"
)

// carries reports whether an Image says that a tag points to it.
func carries(image *imagev1.Image, tag string) bool {
	for t := range strings.SplitSeq(image.Annotations["tallyman.dev/tags"], ",") {
		if t == tag {
			return true
		}
	}
	return false
}

var moves = flag.Int("moves", 36, "times that TestMovedTag moves a tag on each store")

// TestMovedTag moves a tag between three images again and again, by each client in turn and through
// each of the replicas. Every list has it on one Image, and so has a watcher after each event: on two
// for an instant, on none never. Its history has the pushes in the order of their answers.
func TestMovedTag(t *testing.T) {
	t.Parallel()
	docker := startDocker(t)
	for name, start := range map[string]func() []*server{
		"bolt": func() []*server { return []*server{startServer(t)} },
		"redis": func() []*server {
			return startReplicas(t, 3, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))
		},
	} {
		t.Run(name, func(t *testing.T) {
			replicas := start()
			const tag = "team/app:latest"
			move := tagMovers(t, replicas[0], docker)
			move(replicas[0], 0)
			ctx, cancel := context.WithCancel(t.Context())
			var readers sync.WaitGroup
			defer readers.Wait()
			defer cancel()
			reads := make([]int, len(replicas))
			for i, s := range replicas {
				readers.Go(func() { reads[i] = s.readTag(ctx, tag) })
			}
			watched := replicas[len(replicas)-1].watchTag(t, tag)
			var pushed []string // newest first
			for n := 1; n <= *moves; n++ {
				s := replicas[n%len(replicas)]
				move(s, n)
				got := s.request(http.MethodHead, "/v2/team/app/manifests/latest", "", http.Header{"Accept": {imagespec.MediaTypeImageManifest, schema2}})
				pushed = append([]string{got.header.Get("Docker-Content-Digest")}, pushed...)
			}
			watched(*moves)
			cancel()
			readers.Wait()
			for i, n := range reads {
				if n < 10 {
					t.Errorf("only %d reads of replica %d", n, i)
				}
			}
			history, err := replicas[0].tags("team").Get(t.Context(), "app:latest", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var items []string
			for _, item := range history.Status.Items {
				items = append(items, item.Image)
			}
			if want := pushed[:min(len(items), len(pushed))]; len(items) != 20 || !slices.Equal(items, want) {
				t.Errorf("the history is %v, want %v", items, want)
			}
			t.Logf("%d moves, %v reads", *moves, reads)
		})
	}
}

const schema2 = "application/vnd.docker.distribution.manifest.v2+json"

// tagMovers returns a function that makes team/app:latest another image each time, by another client:
// a request, docker, crane and skopeo.
func tagMovers(t *testing.T, s *server, docker []string) func(s *server, n int) {
	t.Helper()
	var manifests, imported []string
	for i := range 3 {
		content := fmt.Sprint(s.addr, " image ", i)
		pushSmallImage(s, "team/app", content)
		_, manifest := smallImage(content)
		manifests = append(manifests, manifest)
		s.pushImage(fmt.Sprint("team/app:source", i), content)
		imported = append(imported, strings.TrimSpace(command(t, docker, "docker", "import", layerTar(t, "imported "+content))))
	}
	return func(s *server, n int) {
		t.Helper()
		i := n / 4 % 3
		source, target := fmt.Sprint(s.addr, "/team/app:source", i), s.addr+"/team/app:latest"
		switch n % 4 {
		case 0:
			if got := s.putManifest("team/app", "latest", imagespec.MediaTypeImageManifest, manifests[i]); got.code != http.StatusCreated {
				t.Fatalf("push: %d %s", got.code, got.body)
			}
		case 1:
			command(t, docker, "docker", "tag", imported[i], target)
			command(t, docker, "docker", "push", target)
		case 2:
			crane(t, "copy", source, target)
		case 3:
			other := fmt.Sprint(s.addr, "/team/app:source", (i+1)%3)
			command(t, nil, "skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+other, "docker://"+target)
		}
	}
}

// readTag lists the Images by a tag, and all of them, and gets the tag, until ctx ends. It returns the number of
// reads, in each of which one Image has the tag.
func (s *server) readTag(ctx context.Context, tag string) (reads int) {
	for ctx.Err() == nil {
		for _, selector := range []string{"tag=" + tag, ""} {
			list, err := s.images().List(ctx, metav1.ListOptions{FieldSelector: selector})
			if ctx.Err() != nil {
				return reads
			}
			if err != nil {
				s.t.Error(err)
				return reads
			}
			var holders []string
			for i := range list.Items {
				if carries(&list.Items[i], tag) {
					holders = append(holders, list.Items[i].Name)
				}
			}
			if len(holders) != 1 {
				s.t.Errorf("%q at %s: the tag is on %v", selector, list.ResourceVersion, holders)
				return reads
			}
			reads++
		}
		repository, name, _ := strings.Cut(tag, "/")
		if _, err := s.tags(repository).Get(ctx, name, metav1.GetOptions{}); err != nil && ctx.Err() == nil {
			s.t.Errorf("the tag as an object: %v", err)
			return reads
		}
	}
	return reads
}

// watchTag keeps an index of the Images with a tag by a watch. The function that it returns waits
// until the tag has moved so many times, and stops.
func (s *server) watchTag(t *testing.T, tag string) func(moves int) {
	t.Helper()
	list, err := s.images().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	holders := map[string]bool{}
	for i := range list.Items {
		if carries(&list.Items[i], tag) {
			holders[list.Items[i].Name] = true
		}
	}
	events, err := s.images().Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	return func(moves int) {
		t.Helper()
		defer events.Stop()
		for gains := 0; gains < moves || len(holders) > 1; {
			select {
			case event := <-events.ResultChan():
				image, ok := event.Object.(*imagev1.Image)
				if !ok || event.Type == watch.Error {
					t.Fatalf("%s %+v", event.Type, event.Object)
				}
				if has := carries(image, tag); has && !holders[image.Name] {
					gains++
					holders[image.Name] = true
				} else if !has {
					delete(holders, image.Name)
				}
				if len(holders) == 0 {
					t.Fatalf("after %s of %s at %s the tag is on no Image", event.Type, image.Name, image.ResourceVersion)
				}
			case <-time.After(time.Minute):
				t.Fatalf("the tag has moved %d times, want %d", gains, moves)
			}
		}
	}
}

// TestFirstPushIsOneEvent: a watcher sees a pushed image once, with its tag.
func TestFirstPushIsOneEvent(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	events, err := s.images().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	first, second := pushSmallImage(s, "team/app", "one"), pushSmallImage(s, "team/other", "two")
	var seen []string
	for len(seen) < 2 {
		select {
		case event := <-events.ResultChan():
			image := event.Object.(*imagev1.Image)
			seen = append(seen, fmt.Sprint(event.Type, " ", image.Name, " ", image.Annotations["tallyman.dev/tags"]))
		case <-time.After(time.Minute):
			t.Fatalf("events: %q", seen)
		}
	}
	if want := []string{"ADDED " + first + " team/app:latest", "ADDED " + second + " team/other:latest"}; strings.Join(seen, "|") != strings.Join(want, "|") {
		t.Errorf("events: %q, want %q", seen, want)
	}
}
