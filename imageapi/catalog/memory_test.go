package catalog

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"flag"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	goredis "github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"

	"tallyman/imageapi/referrers"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/rules"
	"tallyman/signatures/manifest"
	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

var manyImages = flag.Int("images", 2000, "how many Images TestMemory has in Redis")

// realImage returns an image of 8 layers, with the config of a build of 16 steps.
func realImage(n int) (config, content []byte) {
	random := func() digest.Digest {
		var seed [32]byte
		_, _ = rand.Read(seed[:])
		return digest.NewDigestFromBytes(digest.SHA256, seed[:])
	}
	var layers, ids, history []string
	for i := range 8 {
		layers = append(layers, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, imagespec.MediaTypeImageLayerGzip, random(), 1<<20+i*n))
		ids = append(ids, fmt.Sprintf("%q", random()))
	}
	for i := range 16 {
		history = append(history, fmt.Sprintf(`{"created":"2026-01-02T03:04:%02dZ","created_by":"RUN /bin/sh -c apt-get update && apt-get install -y package-%x && rm -rf /var/lib/apt/lists/* # buildkit"}`, i, sha256.Sum256([]byte{byte(n), byte(i)})))
	}
	config = fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","author":"team %d","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin","VERSION=1.%d"],"Cmd":["/app"],"Labels":{"org.opencontainers.image.revision":%q}},"rootfs":{"type":"layers","diff_ids":[%s]},"history":[%s]}`,
		n, n, random().Encoded()[:40], strings.Join(ids, ","), strings.Join(history, ","))
	content = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[%s]}`,
		imagespec.MediaTypeImageManifest, imagespec.MediaTypeImageConfig, digest.FromBytes(config), len(config), strings.Join(layers, ","))
	return config, content
}

// keysRead counts the keys that a store is asked for, and answers with.
type keysRead struct {
	storage.Backend
	keys atomic.Int64
}

func (k *keysRead) Get(ctx context.Context, r storage.GetRequest) (*storage.GetResult, error) {
	k.keys.Add(int64(len(r.Keys)))
	return k.Backend.Get(ctx, r)
}

func (k *keysRead) Scan(ctx context.Context, r storage.ScanRequest) (*storage.ScanResult, error) {
	result, err := k.Backend.Scan(ctx, r)
	if err == nil {
		k.keys.Add(int64(len(result.Entries)))
	}
	return result, err
}

// TestMemory: an Image with its records and terms has a bounded size in Redis, and a selector reads its
// hits, not all Images.
func TestMemory(t *testing.T) {
	server := redistest.Start(t, "redis-server")
	store, err := redis.Open(t.Context(), redis.Options{
		Client: goredis.UniversalOptions{Addrs: []string{server.Addr}}, History: storage.HistoryBounds{MaxBytes: 1 << 20, MaxEntries: 1, MaxAge: time.Second},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	backend := &keysRead{Backend: store}
	images, err := rest.NewImages(backend, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(images.Close)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go images.MaintainIndex(ctx)
	c := New(Options{Backend: backend, Images: images, Referrers: referrers.NewStore(backend), InlineLimit: 1 << 20})
	client := server.Client(t)
	empty := usedMemory(t, client)
	const perRepository = 20
	var group errgroup.Group
	group.SetLimit(16)
	for n := range *manyImages {
		group.Go(func() error {
			config, content := realImage(n)
			m, err := manifest.Parse(imagespec.MediaTypeImageManifest, content)
			if err != nil {
				return err
			}
			p := Push{Repository: fmt.Sprint("team/app", n/perRepository), Digest: digest.FromBytes(content), Manifest: m, Config: config, Host: "registry.example.com", Tag: fmt.Sprint("v", n)}
			image, err := c.Derive(p)
			if err != nil {
				return err
			}
			return c.Record(t.Context(), p, image)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	window, err := store.Window(t.Context())
	if err == nil {
		err = store.Compact(t.Context(), window.Current)
	}
	if err != nil {
		t.Fatal(err)
	}
	each := (usedMemory(t, client) - empty) / int64(*manyImages)
	t.Logf("%d Images: %d bytes each", *manyImages, each)
	if each > 10<<10 {
		t.Errorf("an Image takes %d bytes, more than 10 KiB", each)
	}
	reportKinds(t, client)
	deadline := time.Now().Add(time.Minute)
	for state := images.IndexProgress(); !state.Complete; state = images.IndexProgress() {
		if time.Now().After(deadline) {
			t.Fatalf("the index is not complete: %+v", state)
		}
		time.Sleep(10 * time.Millisecond)
	}
	backend.keys.Store(0)
	label, value, err := rules.ConvertFieldLabel("repository", "team/app7")
	if err != nil {
		t.Fatal(err)
	}
	list, err := images.List(t.Context(), &internalversion.ListOptions{FieldSelector: fields.OneTermEqualSelector(label, value)})
	if err != nil {
		t.Fatal(err)
	}
	hits := len(list.(*imagev1.ImageList).Items)
	read := backend.keys.Load()
	t.Logf("%d keys were read for a repository with %d Images", read, hits)
	if read >= 100 || hits != perRepository {
		t.Errorf("%d keys were read for %d Images", read, hits)
	}
}

func usedMemory(t *testing.T, client *goredis.Client) int64 {
	t.Helper()
	info, err := client.InfoMap(t.Context(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	var used int64
	if _, err := fmt.Sscan(info["Memory"]["used_memory"], &used); err != nil {
		t.Fatal(err)
	}
	return used
}

// reportKinds logs the memory of the keys of each kind: all of the few large ones, and a sample of the
// others.
func reportKinds(t *testing.T, client *goredis.Client) {
	t.Helper()
	type kind struct{ keys, sampled, bytes int64 }
	kinds := map[string]*kind{}
	var cursor uint64
	for more := true; more; more = cursor != 0 {
		keys, next, err := client.Scan(t.Context(), cursor, "*", 1000).Result()
		if err != nil {
			t.Fatal(err)
		}
		cursor = next
		for _, key := range keys {
			name, rest, _ := strings.Cut(key, ":/")
			if rest != "" {
				rest, _, _ = strings.Cut(rest, "/")
				name += ":/" + rest
			} else if strings.Contains(name, ":commit:") {
				name = "commits" // they expire
			}
			k := kinds[name]
			if k == nil {
				k = &kind{}
				kinds[name] = k
			}
			if k.keys++; k.sampled == 1000 {
				continue
			}
			size, err := client.MemoryUsage(t.Context(), key, 0).Result()
			if err != nil {
				continue // it is gone
			}
			k.sampled++
			k.bytes += size
		}
	}
	for name, k := range kinds {
		total := float64(k.bytes) / math.Max(float64(k.sampled), 1) * float64(k.keys)
		t.Logf("%-40s %8d keys, %6.0f bytes an Image", name, k.keys, total/float64(*manyImages))
	}
}
