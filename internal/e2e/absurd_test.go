package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/openshift/api/image/docker10"
)

// TestAbsurdPushes: everything that the registry accepts has its Image, of bounded size;
// refused content gets the registry's own error, and no Image.
func TestAbsurdPushes(t *testing.T) {
	const (
		ociImage = "application/vnd.oci.image.manifest.v1+json"
		ociIndex = "application/vnd.oci.image.index.v1+json"
		repo     = "absurd/app"
	)
	s := startServer(t)
	blob := s.pushBlob(repo, []byte("{}"))
	binary := s.pushBlob(repo, []byte("\xff\xfe\x00"))
	huge := s.pushBlob(repo, make([]byte, 100<<20))
	descriptor := func(digest string, size int64) string {
		return fmt.Sprintf(`{"mediaType":"application/octet-stream","digest":%q,"size":%d}`, digest, size)
	}
	manifest := func(config, layers string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, ociImage, config, layers)
	}
	many := strings.TrimSuffix(strings.Repeat(descriptor(blob, 2)+",", 10_000), ",")
	inner := manifest(descriptor(blob, 2), "")
	innerDigest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(inner)))
	nested := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ociIndex, ociImage, innerDigest, len(inner))
	nestedDigest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(nested)))
	tests := []struct {
		name, mediaType, manifest string
		code                      int
		layers                    int
		size                      int64
	}{
		{"10 000 layers", ociImage, manifest(descriptor(blob, 2), many), 201, 10_000, 2},
		{"negative sizes", ociImage, manifest(descriptor(blob, -5), descriptor(binary, -1)), 201, 1, 2},
		{"config of 100 MiB", ociImage, manifest(descriptor(huge, 100<<20), ""), 201, 0, 100 << 20},
		{"config that is not JSON", ociImage, manifest(descriptor(binary, 3), descriptor(blob, 2)), 201, 1, 5},
		{"duplicate keys", ociImage, strings.Replace(manifest(descriptor(blob, 2), ""), `"layers"`, `"layers":[`+descriptor(binary, 3)+`],"layers"`, 1), 201, 0, 2},
		{"subject and type of wrong types", ociImage, strings.Replace(inner, `{`, `{"subject":"x","artifactType":7,`, 1), 201, 0, 2},
		{"for the indexes", ociImage, inner, 201, 0, 2},
		{"index", ociIndex, nested, 201, 0, 0},
		{"nested index", ociIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, ociIndex, ociIndex, nestedDigest, len(nested)), 201, 0, 0},
		{"empty index", ociIndex, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[]}`, ociIndex), 201, 0, 0},
		{"more than 4 MiB", ociImage, manifest(descriptor(blob, 2), strings.Repeat(" ", 5<<20)), 400, 0, 0},
		{"not JSON", ociImage, "{", 400, 0, 0},
		{"a blob that is not there", ociImage, manifest(descriptor("sha256:"+strings.Repeat("ab", 32), 2), ""), 404, 0, 0},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tag := "t" + strconv.Itoa(i)
			got := s.putManifest(repo, tag, test.mediaType, test.manifest)
			if got.code != test.code && (test.code != 404 || got.code != 400) {
				t.Fatalf("%d, want %d: %s", got.code, test.code, got.body)
			}
			digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(test.manifest)))
			if got.code != http.StatusCreated {
				if !strings.Contains(got.body, `"errors"`) {
					t.Errorf("the error is not the registry's: %s", got.body)
				}
				if err := s.status(api+"/images/"+digest, http.StatusNotFound); err != nil {
					t.Error(err)
				}
				return
			}
			image := s.image(digest)
			var metadata docker10.DockerImage
			if err := json.Unmarshal(image.DockerImageMetadata.Raw, &metadata); err != nil {
				t.Fatal(err)
			}
			if len(image.DockerImageLayers) != test.layers || metadata.Size != test.size || metadata.ID == "" {
				t.Errorf("%d layers, metadata %+v; want %d layers, size %d", len(image.DockerImageLayers), metadata, test.layers, test.size)
			}
			if encoded, err := json.Marshal(image); err != nil || len(encoded) > 4<<20 {
				t.Errorf("the Image has %d bytes, %v", len(encoded), err)
			}
			s.kubectl("label", "image", digest, "absurd=yes")
		})
	}
	if used := anonymousMemory(t, s.cmd.Process.Pid); used > 300<<20 && !raceDetector {
		t.Errorf("the server uses %d MiB", used>>20)
	}
}

// TestListMemory: a LIST takes the memory of a page, not of the list.
func TestListMemory(t *testing.T) {
	t.Parallel()
	const images, each = 1500, 100 << 10
	s := startServer(t)
	config, err := json.Marshal(strings.Repeat("x", each))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < images; i += 8 {
				if got := s.call("POST", api+"/images", asJSON, imageJSON(fmt.Sprintf("i%05d", i), `,"dockerImageConfig":`+string(config))); got.code != http.StatusCreated {
					t.Errorf("create: %d %s", got.code, got.body)
					return
				}
			}
		})
	}
	wg.Wait()
	s.stop() // the memory of creating is not that of listing
	s.start()
	before := anonymousMemory(t, s.cmd.Process.Pid)
	size, peak := s.listMemory(t, api+"/images", "application/json", 1)
	if size < images*each {
		t.Errorf("the list has %d bytes", size)
	}
	t.Logf("a list of %d MiB took %d MiB", size>>20, (peak-before)>>20)
	if grown := peak - before; grown > 64<<20 && !raceDetector {
		t.Errorf("a list of %d MiB took %d MiB", size>>20, grown>>20)
	}
}

// anonymousMemory is the resident memory of a process besides mapped files.
func anonymousMemory(t *testing.T, pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			var kilobytes int64
			if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
				t.Error(err)
			}
			return kilobytes << 10
		}
	}
	t.Error("no RssAnon")
	return 0
}
