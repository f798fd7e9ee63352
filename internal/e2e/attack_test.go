package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/signatures"
	"tallyman/signatures/signtest"
)

// attack is one request that a tenant makes again and again about the image of another.
type attack struct {
	s     *server
	image digest.Digest
	key   *signtest.Key // that nobody believes
}

// attacks are the ways in which a tenant may try to hurt another.
var attacks = map[string]func(attack){
	"annotations": func(a attack) { // artifacts with large annotations, and lists of them
		a.put(imagespec.MediaTypeImageManifest, fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":2},"annotations":{"a":%q}}`,
			imagespec.MediaTypeImageManifest, imagespec.MediaTypeEmptyJSON, a.s.pushBlob("attacker/app", []byte("{}")), imagespec.MediaTypeImageManifest, a.image, noise(3<<20)))
		a.s.request(http.MethodGet, "/v2/attacker/app/referrers/"+a.image.String(), "", nil)
	},
	"signatures": func(a attack) { // well-formed ones by a key that is not trusted
		var all []signatures.Signature
		for range 20 {
			all = append(all, a.key.Cosign(signtest.CosignPayload(a.image, "registry.example.com/"+noise(64), nil)))
		}
		classic := signtest.Classic(all...)
		a.s.pushArtifact("attacker/app", signtest.ClassicTag(a.image), classic)
	},
	"posted": func(a attack) { // GPG signatures that are none
		a.s.request(http.MethodPut, "/extensions/v2/attacker/app/signatures/"+a.image.String(),
			fmt.Sprintf(`{"schemaVersion":2,"name":"%s@%s","type":"atomic","content":%q}`, a.image, digest.FromString(noise(8)).Encoded(), noise(16<<10)), nil)
	},
	"tags": func(a attack) {
		a.s.putManifest("attacker/app", digest.FromString(noise(8)).Encoded()[:12], imagespec.MediaTypeImageManifest, a.s.manifest("attacker/app", a.image.String()))
	},
}

func (a attack) put(mediaType, manifest string) {
	if got := a.s.putManifest("attacker/app", digest.FromString(manifest).String(), mediaType, manifest); got.code != http.StatusCreated {
		a.s.t.Errorf("the attack does not get through: %d %s", got.code, got.body)
	}
}

// noise returns n bytes that do not compress, as text.
func noise(n int) string {
	raw := make([]byte, n/4*3)
	_, _ = rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)
}

// startAttacked starts a server with an image of a victim, which a key that is believed has signed,
// and the same image in a repository of an attacker.
func startAttacked(t testing.TB) (attack, digest.Digest) {
	t.Helper()
	key, other := signtest.NewKey(t, "ecdsa-p256"), signtest.NewKey(t, "ecdsa-p256")
	path := filepath.Join(t.TempDir(), "key.pub")
	writeFile(t, path, key.PEM())
	s := startWithConfig(t, strings.ReplaceAll(keyConfig(path), "registryhost: ADDR", "registryhost: registry.example.com"))
	image := digest.Digest(pushSmallImage(s, "victim/app", "victim"))
	pushSmallImage(s, "attacker/app", "victim")
	s.pushArtifact("victim/app", signtest.ClassicTag(image), signtest.Classic(key.Cosign(signtest.CosignPayload(image, "registry.example.com/victim/app", nil))))
	return attack{s, image, other}, image
}

// cpuTicks returns the CPU time of the server in ticks of the kernel, of which 100 are a second.
func (s *server) cpuTicks() (ticks int64) {
	s.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, fields, _ := bytes.Cut(stat, []byte(") ")) // of the name, from the state on
	var user, system int64
	if n, err := fmt.Sscan(strings.Join(strings.Fields(string(fields))[11:13], " "), &user, &system); n != 2 {
		s.t.Fatal(err)
	}
	return user + system
}

// storeStats returns the sizes of the current values and of the history.
func (s *server) storeStats() (stats struct{ Bytes, LogBytes int64 }) {
	s.t.Helper()
	out, err := s.tryMetadata("stats", "--output=json")
	if err != nil || json.Unmarshal([]byte(out), &stats) != nil {
		s.t.Fatalf("store stats: %v: %s", err, out)
	}
	return stats
}

func (s *server) storeBytes() int64 { return s.storeStats().Bytes }

// TestHistoryOfLargeImage: tags of an Image with as many signatures as it may have take up little of
// the history, which keeps the changed parts.
func TestHistoryOfLargeImage(t *testing.T) {
	t.Parallel()
	a, image := startAttacked(t)
	size := a.s.mustGet(t, api+"/images/"+image.String())
	var all []signatures.Signature
	for n := range 7 {
		all = append(all, a.key.Cosign(signtest.CosignPayload(image, "registry.example.com/attacker/app", map[string]any{"n": n, "noise": noise(100 << 10)})))
	}
	a.s.pushArtifact("victim/app", signtest.ClassicTag(image), signtest.Classic(all...))
	if size = a.s.mustGet(t, api+"/images/"+image.String()) - size; size < 500<<10 {
		t.Fatalf("the signatures made the Image larger by %d bytes only", size)
	}
	const tags = 20
	before := a.s.storeStats().LogBytes
	for range tags {
		attacks["tags"](a)
	}
	if kept := (a.s.storeStats().LogBytes - before) / tags; kept < 100 || kept > 64<<10 {
		t.Errorf("the history has %d bytes for each tag of an Image that is larger by %d bytes", kept, size)
	} else {
		t.Logf("%d bytes in the history for each tag", kept)
	}
}

// TestTenantBounds: no attack makes the store grow by more than 20 times what it uploads, or memory
// by more than 200 MiB, and the victim's image stays trusted.
func TestTenantBounds(t *testing.T) {
	t.Parallel()
	for name, request := range attacks {
		t.Run(name, func(t *testing.T) {
			a, image := startAttacked(t)
			idle, before, sent := a.s.statusBytes(t, "RssAnon"), a.s.storeBytes(), a.s.sent.Load()
			for range 20 {
				request(a)
			}
			grown, sent := a.s.storeBytes()-before, a.s.sent.Load()-sent
			if grown > 20*sent {
				t.Errorf("%d bytes are stored of %d that were sent", grown, sent)
			}
			if now := a.s.statusBytes(t, "RssAnon"); now-idle > 200<<20 {
				t.Errorf("%d MiB of memory, before %d MiB", now>>20, idle>>20)
			}
			if trusted := a.s.image(image.String()).Annotations["tallyman.dev/trusted"]; !strings.Contains(trusted, "victim/app") {
				t.Errorf("the victim's image is trusted in %q only", trusted)
			}
		})
	}
}

// BenchmarkAttack measures the CPU of the server for one attack, its requests together, and as a
// multiple of that for an ordinary push, and the bytes that are stored for each byte that is sent.
func BenchmarkAttack(b *testing.B) {
	for name, request := range attacks {
		b.Run(name, func(b *testing.B) {
			a, _ := startAttacked(b)
			const pushes = 200
			start := a.s.cpuTicks()
			for n := range pushes {
				pushSmallImage(a.s, "ordinary/app", fmt.Sprint("ordinary ", n))
			}
			push := float64(a.s.cpuTicks()-start) / pushes
			before, sent, requests, n := a.s.storeBytes(), a.s.sent.Load(), a.s.requests.Load(), 0
			start = a.s.cpuTicks()
			for b.Loop() {
				request(a)
				n++
			}
			ticks := float64(a.s.cpuTicks() - start)
			b.ReportMetric(10*ticks/float64(n), "ms-cpu")
			b.ReportMetric(ticks/float64(a.s.requests.Load()-requests)/push, "x-push/request")
			b.ReportMetric(float64(a.s.storeBytes()-before)/float64(a.s.sent.Load()-sent), "B-stored/B-sent")
		})
	}
}
