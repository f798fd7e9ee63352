package e2e

import (
	"flag"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tallyman/storage/redis/redistest"
)

var listImages = flag.Int("list-images", 3000, "Images of TestListFormats")

// listFormats are the forms in which clients ask for lists.
var listFormats = []struct{ name, query, accept string }{
	{"JSON", "", "application/json"},
	{"indented JSON", "?pretty=1", "application/json"},
	{"YAML", "", "application/yaml"},
	{"CBOR", "", "application/cbor"},
	{"protobuf", "", "application/vnd.kubernetes.protobuf"},
	{"table", "", "application/json;as=Table;v=v1;g=meta.k8s.io"},
	{"table of objects", "?includeObject=Object", "application/json;as=Table;v=v1;g=meta.k8s.io"},
	{"metadata", "", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"},
	{"metadata in protobuf", "", "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"},
}

// maxListMemory returns the memory that lists may take above that of an idle process. With
// few Images the cache of values is small, so that garbage is collected later than the
// memory of an idle process suggests.
func maxListMemory() int64 {
	if *listImages < 10_000 {
		return 96 << 20
	}
	return 64 << 20
}

// TestListFormats lists all Images in each format, once alone and eight times at once: the
// memory of the process grows by a bounded amount.
func TestListFormats(t *testing.T) {
	server := redistest.Start(t, "redis-server")
	s := startWithConfig(t, strings.ReplaceAll(movable, "REDIS", server.Addr), "REGISTRY_IMAGEAPI_STORE_TYPE=redis")
	name := pushRichImage(s)
	s.stop()
	seed(t, server.Addr, name, *listImages)
	for _, format := range listFormats {
		t.Run(format.name, func(t *testing.T) {
			s.start()
			defer s.stop()
			s.mustGet(t, api+"/images") // fills the cache of values, which stays
			idle := anonymousMemory(t, s.cmd.Process.Pid)
			if _, compressed := s.readAs(t, api+"/images"+format.query, format.accept); !compressed {
				t.Error("the list is not compressed")
			}
			for _, concurrent := range []int{1, 8} {
				begin := time.Now()
				size, peak := s.listMemory(t, api+"/images"+format.query, format.accept, concurrent)
				t.Logf("%d at once, each of %d MiB: %d MiB above idle (%d MiB), %.1f s", concurrent, size>>20, (peak-idle)>>20, idle>>20, time.Since(begin).Seconds())
				if peak-idle > maxListMemory() && !raceDetector {
					t.Errorf("%d lists took %d MiB, want at most %d", concurrent, (peak-idle)>>20, maxListMemory()>>20)
				}
			}
		})
	}
}

// listMemory reads so many lists at once. It returns the size of one and the peak of the
// process' anonymous memory.
func (s *server) listMemory(t *testing.T, path, accept string, concurrent int) (size, peak int64) {
	t.Helper()
	var lists, sampler sync.WaitGroup
	done := make(chan struct{})
	sampler.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
				peak = max(peak, anonymousMemory(t, s.cmd.Process.Pid))
			}
		}
	})
	var total atomic.Int64
	for range concurrent {
		lists.Go(func() { total.Add(s.mustGetAs(t, path, accept)) })
	}
	lists.Wait()
	close(done)
	sampler.Wait()
	return total.Load() / int64(concurrent), peak
}
