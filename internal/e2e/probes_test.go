package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/storage/redis/redistest"
)

var outageTime = flag.Duration("outage-time", 5*time.Second, "how long Redis is away in TestProbesWithoutStore")

// TestProbesWithoutStore: while Redis is away, the probes of the manifests and of the chart do not
// take the registry out of its Service, each pull and each push succeeds, and all pushes are
// recorded when Redis is back.
func TestProbesWithoutStore(t *testing.T) {
	probes := map[string]bool{}
	for _, file := range []string{"base/deployment.yaml", "chart/templates/deployment.yaml"} {
		content, err := os.ReadFile("../../config/kubernetes/" + file)
		must(t, "a manifest", err)
		found := regexp.MustCompile(`path: (/(?:livez|readyz)[^\s,}]*)`).FindAllStringSubmatch(string(content), -1)
		if len(found) < 2 {
			t.Fatalf("%s has the probes %q", file, found)
		}
		for _, probe := range found {
			probes[probe[1]] = true
		}
	}
	redis := redistest.Start(t, "redis-server", redistest.Durable...)
	s := outageServer(t, redis, "defer")
	pushed := []string{pushSmallImage(s, "app", "before")}
	redis.Kill()
	began := time.Now()
	for n := 0; n < 3 || time.Since(began) < *outageTime; n++ {
		for probe := range probes {
			must(t, probe, s.status(probe, http.StatusOK))
		}
		s.manifest("app", "latest")
		pushed = append(pushed, pushSmallImage(s, "app", fmt.Sprint("away ", n)))
		time.Sleep(time.Second)
	}
	redis.Run(t)
	for _, name := range pushed {
		eventually(t, "a push is recorded", func() error {
			_, err := s.images().Get(t.Context(), name, metav1.GetOptions{})
			return err
		})
	}
	t.Logf("%d pushes and pulls in %s without Redis", len(pushed)-1, time.Since(began).Round(time.Second))
}
