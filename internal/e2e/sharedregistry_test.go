package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/storage/redis/redistest"
)

// TestSharedRegistry: three processes move one tag and push and delete one manifest at the
// same time. When they are done, Images agree with the registry.
func TestSharedRegistry(t *testing.T) {
	redis := redistest.Start(t, "redis-server")
	replicas := startReplicas(t, 3, redisAt(redis.Addr))
	const kind = "application/vnd.oci.image.manifest.v1+json"
	var manifests, names []string
	for i, s := range replicas {
		content := fmt.Sprint("image ", i)
		names = append(names, pushSmallImage(s, "team/app", content))
		manifests = append(manifests, s.manifest("team/app", names[i]))
	}
	contested := pushSmallImage(replicas[0], "team/other", "contested")
	contestedManifest := replicas[0].manifest("team/other", contested)
	for range 8 {
		var wg sync.WaitGroup
		for i, s := range replicas {
			wg.Go(func() {
				if got, err := s.try(http.MethodPut, "/v2/team/app/manifests/moving", manifests[i], http.Header{"Content-Type": {kind}}); err != nil || got.code != http.StatusCreated {
					t.Errorf("tag: %d %s, %v", got.code, got.body, err)
				}
			})
			wg.Go(func() {
				var err error
				if i == 0 {
					_, err = s.try(http.MethodDelete, "/v2/team/other/manifests/"+contested, "", nil)
				} else {
					_, err = s.try(http.MethodPut, "/v2/team/other/manifests/"+contested, contestedManifest, http.Header{"Content-Type": {kind}})
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		eventually(t, "the tag is where the registry has it", func() error { return onlyHolder(replicas[0], names, "team/app:moving") })
		eventually(t, "the contested manifest is as the registry has it", func() error {
			got := replicas[1].request(http.MethodHead, "/v2/team/other/manifests/"+contested, "", http.Header{"Accept": {kind}})
			image := replicas[2].request(http.MethodGet, "/apis/image.openshift.io/v1/images/"+contested, "", nil)
			if got.code != image.code {
				return fmt.Errorf("the registry says %d, the API %d", got.code, image.code)
			}
			return nil
		})
	}
}

// onlyHolder wants exactly that Image to carry the tag which it points to.
func onlyHolder(s *server, names []string, tag string) error {
	repository, reference, _ := strings.Cut(tag, ":")
	got := s.request(http.MethodHead, "/v2/"+repository+"/manifests/"+reference, "", http.Header{"Accept": {"application/vnd.oci.image.manifest.v1+json"}})
	want := got.header.Get("Docker-Content-Digest")
	for _, name := range names {
		image, err := s.images().Get(s.t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if holds := slices.Contains(strings.Split(image.Annotations["tallyman.dev/tags"], ","), tag); holds != (name == want) {
			return fmt.Errorf("the tag points to %s, and %s carrying it is %v", want, name, holds)
		}
	}
	return nil
}

// TestEvictedImage: an Image that Redis evicted is derived again, once anybody
// looks for it, and counted.
func TestEvictedImage(t *testing.T) {
	redis, debug := redistest.Start(t, "valkey-server"), freeAddress(t)
	s := outageServer(t, redis, "defer", "REGISTRY_HTTP_DEBUG_ADDR="+debug, "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED=true")
	name := pushSmallImage(s, "app", "one")
	for _, look := range []string{"/apis/image.openshift.io/v1/images", "/apis/image.openshift.io/v1/images/" + name} {
		redis.Command(t, "DEL", "{tallyman}:value:/images/"+name)
		s.request(http.MethodGet, look, "", nil)
		eventually(t, "the image is back", func() error { return s.lives(name, "app", "app:latest") })
	}
	for name, want := range map[string]float64{"imageapi_store_redis_up": 1, "imageapi_store_redis_evicted_total": 2, "imageapi_store_redis_losses_total": 1} {
		must(t, "metric", metricAtLeast(debug, name, want))
	}
}
