package e2e

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/imageapi/rest"
	"tallyman/storage"
	"tallyman/storage/redis"
	"tallyman/storage/redis/redistest"
)

var scaleImages = flag.Int("images", 20_000, "how many Images BenchmarkScale has in Redis; it also measures a tenth of that")

// BenchmarkScale measures a process on a Redis with many Images, and with a tenth of them, to
// tell costs that grow with their number from others. Run it once: `make scale`.
func BenchmarkScale(b *testing.B) {
	for _, n := range []int{*scaleImages / 10, *scaleImages} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				measureScale(b, n)
			}
		})
	}
}

func measureScale(b *testing.B, n int) {
	server := redistest.Start(b, "redis-server", "--appendonly", "yes", "--appendfsync", "no")
	s := startWithConfig(b, strings.ReplaceAll(movable, "REDIS", server.Addr), "REGISTRY_IMAGEAPI_STORE_TYPE=redis")
	name := pushRichImage(s)
	s.stop()
	empty := redisMemory(b, server)
	seed(b, server.Addr, name, n)
	b.ReportMetric(float64(redisMemory(b, server)-empty)/float64(n), "redis-B/image")

	start := time.Now()
	s.start()
	b.ReportMetric(time.Since(start).Seconds(), "s-to-ready")
	s.mustGet(b, "/apis/image.openshift.io/v1/images?limit=1")
	b.ReportMetric(residentMiB(b, s), "MiB-idle")

	start = time.Now()
	size := s.mustGet(b, "/apis/image.openshift.io/v1/images")
	b.ReportMetric(time.Since(start).Seconds(), "s-full-list")
	b.ReportMetric(float64(size)/float64(n), "json-B/image")
	b.ReportMetric(residentMiB(b, s), "MiB-after-list")

	start = time.Now()
	pages, items := s.pagedList(b, 500)
	b.ReportMetric(time.Since(start).Seconds(), "s-paged-list")
	b.ReportMetric(residentMiB(b, s), "MiB-after-pages")
	if items != n+1 {
		b.Fatalf("%d pages had %d images, want %d", pages, items, n+1)
	}
	b.ReportMetric(float64(selectiveLookups(b, s, server)), "lookups-by-repository")

	for _, format := range []struct{ name, path, accept string }{
		{"indented", "?pretty=1", "application/json"}, {"yaml", "", "application/yaml"},
		{"nothing-matches", "?limit=1000000000&labelSelector=a%3Dnone", "application/json"},
	} {
		s.mustGetAs(b, "/apis/image.openshift.io/v1/images"+format.path, format.accept)
		b.ReportMetric(residentMiB(b, s), "MiB-after-"+format.name)
	}
}

// selectiveLookups returns how many keys Redis looks up for a list of the 20 Images of
// one repository.
func selectiveLookups(b *testing.B, s *server, server *redistest.Server) int64 {
	b.Helper()
	const hits = 20
	for i := range hits {
		pushSmallImage(s, "team/app", fmt.Sprint("selected ", i))
	}
	before := redisStat(b, server, "keyspace_hits") + redisStat(b, server, "keyspace_misses")
	out := s.kubectl("get", "images", "--field-selector", "repository=team/app", "-o", "name")
	after := redisStat(b, server, "keyspace_hits") + redisStat(b, server, "keyspace_misses")
	if n := strings.Count(out, "\n"); n != hits {
		b.Fatalf("kubectl lists %d images, want %d", n, hits)
	}
	return after - before
}

// pushRichImage pushes an image with ten layers and a config with a history.
func pushRichImage(s *server) (name string) { return pushRichImageAs(s, "app", "latest") }

// pushRichImageAs is pushRichImage for a repository and a tag, which is also the author of the image.
func pushRichImageAs(s *server, repository, tag string) (name string) {
	s.t.Helper()
	var layers, diffs, history []string
	for i := range 10 {
		layer := s.pushBlob(repository, fmt.Appendf(nil, "layer %d", i))
		layers = append(layers, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":7}`, layer))
		diffs = append(diffs, fmt.Sprintf("%q", layer))
		history = append(history, fmt.Sprintf(`{"created":"2026-01-0%dT00:00:00Z","created_by":"RUN /bin/sh -c apt-get install -y package-%d && rm -rf /var/lib/apt/lists/*"}`, i%9+1, i))
	}
	config := `{"author":"` + tag + `","architecture":"amd64","os":"linux","created":"2026-01-09T00:00:00Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/bin:/bin","LANG=C.UTF-8"],` +
		`"Cmd":["/bin/server","--listen",":8080"],"Labels":{"org.opencontainers.image.source":"https://example.com/app"}},` +
		`"rootfs":{"type":"layers","diff_ids":[` + strings.Join(diffs, ",") + `]},"history":[` + strings.Join(history, ",") + `]}`
	digest := s.pushBlob(repository, []byte(config))
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	got := s.putManifest(repository, tag, mediaType, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json",`+
		`"digest":%q,"size":%d},"layers":[%s]}`, mediaType, digest, len(config), strings.Join(layers, ",")))
	if got.code != http.StatusCreated {
		s.t.Fatalf("push: %d %s", got.code, got.body)
	}
	return got.header.Get("Docker-Content-Digest")
}

// mustPut pushes a manifest to the repository app and returns its digest.
func (s *server) mustPut(mediaType, manifest string) (name string) {
	s.t.Helper()
	got := s.putManifest("app", "latest", mediaType, manifest)
	if got.code != http.StatusCreated {
		s.t.Fatalf("push: %d %s", got.code, got.body)
	}
	return got.header.Get("Docker-Content-Digest")
}

// pushIndex pushes an index of four platforms.
func pushIndex(s *server) (name string) {
	s.t.Helper()
	var entries []string
	for _, architecture := range []string{"amd64", "arm64", "ppc64le", "s390x"} {
		config := fmt.Sprintf(`{"architecture":%q,"os":"linux"}`, architecture)
		digest := s.pushBlob("app", []byte(config))
		child := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json",`+
			`"digest":%q,"size":%d},"layers":[]}`, digest, len(config))
		entries = append(entries, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"platform":{"architecture":%q,"os":"linux"}}`,
			s.mustPut("application/vnd.oci.image.manifest.v1+json", child), len(child), architecture))
	}
	const mediaType = "application/vnd.oci.image.index.v1+json"
	return s.mustPut(mediaType, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, mediaType, strings.Join(entries, ",")))
}

// pushArtifact pushes an artifact with a subject.
func pushArtifact(s *server) (name string) {
	s.t.Helper()
	subject := pushIndex(s)
	empty := s.pushBlob("app", []byte("{}"))
	return s.mustPut("application/vnd.oci.image.manifest.v1+json", fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",`+
		`"artifactType":"application/spdx+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},`+
		`"layers":[{"mediaType":"application/spdx+json","digest":%q,"size":2}],"subject":{"mediaType":"application/vnd.oci.image.index.v1+json","digest":%q,"size":1}}`,
		empty, empty, subject))
}

// BenchmarkScaleMemory measures the memory of Redis for each Image with all its terms,
// by kind: `make scale`.
func BenchmarkScaleMemory(b *testing.B) {
	const n = 20_000
	for kind, push := range map[string]func(*server) string{"image with ten layers": pushRichImage, "index of four platforms": pushIndex, "artifact with a subject": pushArtifact} {
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				server := redistest.Start(b, "redis-server")
				s := startWithConfig(b, strings.ReplaceAll(movable, "REDIS", server.Addr), "REGISTRY_IMAGEAPI_STORE_TYPE=redis")
				name := push(s)
				s.stop()
				empty := redisMemory(b, server)
				terms := seed(b, server.Addr, name, n)
				b.ReportMetric(float64(redisMemory(b, server)-empty)/n, "redis-B/image")
				b.ReportMetric(float64(terms), "terms/image")
			}
		})
	}
}

var hexDigits = regexp.MustCompile(`[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f-]{27}`)

// seed adds n Images to the store: copies of the one called name, with other digests
// and uids, which do not compress. It returns how many terms each has.
func seed(b testing.TB, addr, name string, n int) (terms int) {
	b.Helper()
	store, err := redis.Open(b.Context(), redis.Options{Client: goredis.UniversalOptions{Addrs: []string{addr}}})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	original, _, err := storage.GetEntry(b.Context(), store, rest.KeyPrefix+name, storage.Read{Terms: true})
	if err != nil || original == nil {
		b.Fatalf("%+v, %v", original, err)
	}
	var wg sync.WaitGroup
	const workers = 8
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 3))
			for i := w; i < n; i += workers {
				name := ""
				value := hexDigits.ReplaceAllFunc(original.Value.Body(), func(old []byte) []byte {
					fresh := fmt.Appendf(nil, "%016x%016x%016x%016x", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
					if len(old) == 64 && name == "" {
						name = string(fresh)
					}
					return fresh[:len(old)]
				})
				key := rest.KeyPrefix + "sha256:" + name
				terms, err := rest.StoredTerms(key, value)
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := store.Commit(b.Context(), storage.Mutation{Key: key, Value: storage.Body(value), Terms: terms}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return len(original.Terms)
}

func redisMemory(b testing.TB, server *redistest.Server) int64 {
	b.Helper()
	return redisStat(b, server, "used_memory")
}

// redisStat returns one number of INFO.
func redisStat(b testing.TB, server *redistest.Server, name string) int64 {
	b.Helper()
	for line := range strings.Lines(fmt.Sprint(server.Command(b, "INFO", "everything"))) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+":"); ok {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("INFO has no used_memory")
	return 0
}

// residentMiB is the peak resident memory of the process.
func residentMiB(b testing.TB, s *server) float64 {
	b.Helper()
	return float64(s.statusBytes(b, "VmHWM")) / (1 << 20)
}

// mustGet reads an answer to its end and returns its size.
func (s *server) mustGet(b testing.TB, path string) int64 {
	b.Helper()
	return s.mustGetAs(b, path, "application/json")
}

func (s *server) mustGetAs(b testing.TB, path, accept string) int64 {
	b.Helper()
	size, _ := s.readAs(b, path, accept)
	return size
}

// readAs reads an answer to its end. It returns its size, and whether it was compressed, as
// Go's client asks by default.
func (s *server) readAs(b testing.TB, path, accept string) (size int64, compressed bool) {
	b.Helper()
	request, err := http.NewRequest(http.MethodGet, s.url(path), nil)
	if err != nil {
		b.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		b.Fatal(err)
	}
	defer response.Body.Close()
	size, err = io.Copy(io.Discard, response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s, %v", path, response.Status, err)
	}
	return size, response.Uncompressed
}

func (s *server) pagedList(b *testing.B, limit int) (pages, items int) {
	b.Helper()
	token := ""
	for {
		response, err := http.Get(s.url(fmt.Sprintf("/apis/image.openshift.io/v1/images?limit=%d&continue=%s", limit, token)))
		if err != nil {
			b.Fatal(err)
		}
		var page struct {
			Metadata struct{ Continue string }
			Items    []struct{}
		}
		err = json.NewDecoder(response.Body).Decode(&page)
		if closeErr := response.Body.Close(); err != nil || closeErr != nil {
			b.Fatal(err, closeErr)
		}
		pages, items = pages+1, items+len(page.Items)
		if token = page.Metadata.Continue; token == "" {
			return pages, items
		}
	}
}
