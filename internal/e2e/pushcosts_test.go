package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures/signtest"
	"tallyman/storage/redis/redistest"
)

// pushCost is the cost of a change above that of plain distribution.
type pushCost struct {
	roundTrips  float64 // to Redis
	driverCalls float64 // to the registry's storage; opening a Reader is not counted there
}

// costly is one kind of change of a registry. prepare makes uncounted requests.
type costly struct {
	name         string
	prepare, run func(s *server)
	most         pushCost
}

// smallImage returns a config, and the manifest of an image that has it.
func smallImage(content string) (config, manifest string) {
	config = fmt.Sprintf(`{"architecture":"amd64","os":"linux","author":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, content)
	return config, fmt.Sprintf(smallManifest, digest.FromString(config), len(config))
}

// costs are the kinds of changes, one after the other in one repository. Each bound was
// measured: a change that lowers it lowers the bound.
func costs(t *testing.T, repository string) []costly {
	key := signtest.NewKey(t, "ecdsa-p256")
	config1, one := smallImage(repository + " one")
	config2, two := smallImage(repository + " two")
	config3, three := smallImage(repository + " three")
	signature := signtest.Classic(key.Cosign(signtest.CosignPayload(digest.FromString(one), "registry.example.com/"+repository, nil)))
	put := func(reference, mediaType, manifest string) func(*server) {
		return func(s *server) {
			s.t.Helper()
			if got := s.putManifest(repository, reference, mediaType, manifest); got.code != http.StatusCreated {
				s.t.Fatalf("push: %d %s", got.code, got.body)
			}
		}
	}
	image := func(reference, manifest string) func(*server) {
		return put(reference, imagespec.MediaTypeImageManifest, manifest)
	}
	remove := func(reference string) func(*server) {
		return func(s *server) { s.deleteManifest(repository, reference) }
	}
	blobs := func(contents ...string) func(*server) {
		return func(s *server) {
			for _, content := range contents {
				s.pushBlob(repository, []byte(content))
			}
		}
	}
	var signatureBlobs, children []string
	for _, blob := range signature.Blobs {
		signatureBlobs = append(signatureBlobs, string(blob))
	}
	pushChildren := func(*server) {}
	for _, architecture := range []string{"amd64", "arm64"} {
		config, child := smallImage(repository + " " + architecture)
		children = append(children, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":%q}}`, imagespec.MediaTypeImageManifest, digest.FromString(child), len(child), architecture))
		before := pushChildren
		pushChildren = func(s *server) {
			before(s)
			blobs(config)(s)
			image(digest.FromString(child).String(), child)(s)
		}
	}
	index := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, imagespec.MediaTypeImageIndex, strings.Join(children, ","))
	return []costly{
		{"first push into a repository", blobs(config1), image("v1", one), pushCost{3, 1}},
		{"new image", blobs(config3), image("v3", three), pushCost{2, 1}},
		{"new tag on an image", blobs(), image("v2", one), pushCost{2, 1}},
		{"moved tag", func(s *server) {
			blobs(config2)(s)
			image("other", two)(s)
		}, image("v2", two), pushCost{3, 1}},
		{"same push again", blobs(), image("v2", two), pushCost{2, 1}},
		{"index of two images", pushChildren, put("index", imagespec.MediaTypeImageIndex, index), pushCost{2, 0}},
		{"signature", blobs(signatureBlobs...), image(signtest.ClassicTag(digest.FromString(one)), string(signature.Manifest)), pushCost{4, 1}},
		{"untag", blobs(), remove("v3"), pushCost{3, 1}},
		{"untag of a signed image", blobs(), remove("v1"), pushCost{3, 1}},
		{"DELETE", blobs(), remove(digest.FromString(two).String()), pushCost{7, 0}},
	}
}

// TestPushCosts: a change of the registry takes a bounded number of round trips to Redis, and of
// calls to the registry's storage more than with plain distribution.
func TestPushCosts(t *testing.T) {
	t.Parallel()
	debug, plainDebug := freeAddress(t), freeAddress(t)
	observed := func(addr string) []string {
		return []string{"REGISTRY_HTTP_DEBUG_ADDR=" + addr, "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED=true"}
	}
	redis := redistest.Start(t, "redis-server", redistest.Durable...)
	s := startWithConfig(t, plainConfig+redisAt(redis.Addr)(0)+"\nimageapi: {registryhost: registry.example.com}\n", observed(debug)...)
	pair := []*server{s, {t: t, addr: startPlainRegistry(t, "", observed(plainDebug)...)}}
	for _, c := range costs(t, "warm/app") { // Redis learns the scripts
		for _, on := range pair {
			c.prepare(on)
			c.run(on)
		}
	}
	const trips, calls = "imageapi_store_redis_round_trips_total", "registry_storage_action_seconds"
	// Work in the background adds to some of them, and more on a busy machine: then there is another try.
	least, within := map[string]pushCost{}, false
	for try := 0; try < 3 || !within && try < 10; try++ {
		within = true
		for _, c := range costs(t, fmt.Sprint("app", try)) {
			for _, on := range pair {
				c.prepare(on)
			}
			before := settled(t, debug+" "+trips, debug+" "+calls, plainDebug+" "+calls)
			for _, on := range pair {
				c.run(on)
			}
			after := settled(t, debug+" "+trips, debug+" "+calls, plainDebug+" "+calls)
			got := pushCost{after[0] - before[0], after[1] - before[1] - (after[2] - before[2])}
			if known, ok := least[c.name]; ok {
				got = pushCost{min(got.roundTrips, known.roundTrips), min(got.driverCalls, known.driverCalls)}
			}
			least[c.name] = got
			within = within && got.roundTrips <= c.most.roundTrips && got.driverCalls <= c.most.driverCalls
		}
	}
	for _, c := range costs(t, "any/app") {
		got := least[c.name]
		t.Logf("%s: %v round trips, %v calls of the driver more than distribution", c.name, got.roundTrips, got.driverCalls)
		if got.roundTrips > c.most.roundTrips || got.driverCalls > c.most.driverCalls {
			t.Errorf("%s: %v round trips and %v calls of the driver more, want %v and %v at most", c.name, got.roundTrips, got.driverCalls, c.most.roundTrips, c.most.driverCalls)
		}
	}
}

// settled returns the values of metrics, each "<address> <name>", once nothing is under way that
// changes one.
func settled(t *testing.T, names ...string) []float64 {
	t.Helper()
	last := make([]float64, len(names))
	eventually(t, "the counters stand still", func() error {
		moved := false
		for i, name := range names {
			addr, name, _ := strings.Cut(name, " ")
			value, err := metric(addr, name)
			if err != nil {
				return err
			}
			moved = moved || value != last[i]
			last[i] = value
		}
		if moved {
			time.Sleep(100 * time.Millisecond)
			return fmt.Errorf("they are at %v", last)
		}
		return nil
	})
	return last
}
