package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage/redis/redistest"
)

var (
	hostileReads  = flag.Int("hostile-reads", 3000, "requests of TestHostileReads")
	hostileTime   = flag.Duration("hostile-time", 0, "least duration of TestHostileReads")
	hostileImages = flag.Int("hostile-images", 1000, "Images of TestHostileReads")
)

// maxAnonymous is the bound of the process' own memory, without GOMEMLIMIT.
const maxAnonymous = 1 << 30

// hostile has values of each parameter of a read, sound ones and others.
var hostile = map[string][]string{
	"limit":                {"", "", "0", "1", "7", "500", "1000000000", "9223372036854775807", "-1", "-9223372036854775808", "abc", "1e9"},
	"continue":             {"", "", "", "garbage", "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0"},
	"resourceVersion":      {"", "", "", "0", "1", "NEWEST", "9223372036854775807", "18446744073709551615", "-1", "x"},
	"resourceVersionMatch": {"", "", "Exact", "NotOlderThan", "Nonsense"},
	"labelSelector":        {"", "", "a=none", "a!=none", "a in (b,c)", "a in (", ",,"},
	"fieldSelector":        {"", "", "metadata.name=x", "repository=app", "layer=sha256:0", "nonsense=1", "repository"},
	"pretty":               {"", "", "1", "true"},
	"watch":                {"", "", "", "", "true"},
	"sendInitialEvents":    {"", "", "", "true"},
	"allowWatchBookmarks":  {"", "true"},
}

var hostileAccepts = []string{
	"application/json", "*/*", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor", "text/html",
	"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", "application/json;as=Nonsense;v=v1;g=meta.k8s.io",
}

// TestHostileReads sends random parameters and media types, eight requests at a time. Most
// clients leave after a while or after some bytes. No answer is an error of the server; the
// memory of the process stays bounded; and an ordinary GET is answered all the time.
func TestHostileReads(t *testing.T) {
	server := redistest.Start(t, "redis-server")
	s := startWithConfig(t, strings.ReplaceAll(movable, "REDIS", server.Addr), "REGISTRY_IMAGEAPI_STORE_TYPE=redis")
	name := pushRichImage(s)
	s.stop()
	seed(t, server.Addr, name, *hostileImages)
	s.start()
	newest := fmt.Sprint(s.newest())
	var sent, abandoned atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	const workers = 8
	for w := range workers {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 7))
			for (sent.Add(1) <= int64(*hostileReads) || time.Since(begin) < *hostileTime) && !t.Failed() {
				whole := random.IntN(200) == 0
				if left, err := s.hostileRead(t.Context(), random, newest, whole); err != nil {
					t.Error(err)
				} else if left {
					abandoned.Add(1)
				}
				if random.IntN(20) == 0 {
					if err := s.status(api+"/images/"+name, http.StatusOK); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	anonymous := s.statusBytes(t, "RssAnon")
	t.Logf("%d requests in %.0f s, of which %d were abandoned; %d Images, RssAnon %d MiB",
		sent.Load(), time.Since(begin).Seconds(), abandoned.Load(), *hostileImages, anonymous>>20)
	if abandoned.Load() >= sent.Load()/2 {
		t.Errorf("%d of %d requests were abandoned", abandoned.Load(), sent.Load())
	}
	if anonymous > maxAnonymous {
		t.Errorf("RssAnon is %d MiB, want at most %d", anonymous>>20, maxAnonymous>>20)
	}
}

// hostileRead sends one request. Unless it reads the whole answer, it leaves after up to
// a second or 256 KiB; it reports whether it left before the status.
func (s *server) hostileRead(ctx context.Context, random *rand.Rand, newest string, whole bool) (left bool, err error) {
	query := url.Values{"timeoutSeconds": {"1"}}
	for key, values := range hostile {
		if value := values[random.IntN(len(values))]; value != "" {
			query.Set(key, strings.ReplaceAll(value, "NEWEST", newest))
		}
	}
	patience, most := 4*time.Minute, int64(math.MaxInt64)
	if !whole {
		patience, most = time.Duration(20+random.IntN(1000))*time.Millisecond, 1+random.Int64N(256<<10)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	target := s.url(api + "/images?" + query.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return false, err
	}
	request.Header.Set("Accept", hostileAccepts[random.IntN(len(hostileAccepts))])
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		if !whole && ctx.Err() != nil {
			return true, nil
		}
		return false, fmt.Errorf("%s as %s: %w", target, request.Header.Get("Accept"), err)
	}
	size, err := io.CopyN(io.Discard, response.Body, most)
	if errors.Is(err, io.EOF) || !whole && ctx.Err() != nil {
		err = nil
	}
	_ = response.Body.Close()
	// 504 is Kubernetes' answer to a resourceVersion of the future.
	expected := []int{200, 400, 406, 410, 422, 429, 504}
	if err == nil && !slices.Contains(expected, response.StatusCode) {
		err = errors.New(response.Status)
	}
	if err != nil {
		return false, fmt.Errorf("%s as %s: after %d bytes: %w", target, request.Header.Get("Accept"), size, err)
	}
	return false, nil
}

// statusBytes returns a size in /proc/PID/status.
func (s *server) statusBytes(t testing.TB, name string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := bytes.Cut(status, []byte(name+":"))
	var kib int64
	if _, err := fmt.Sscan(string(after), &kib); err != nil || !found {
		t.Fatalf("%s: %v", name, err)
	}
	return kib << 10
}
