package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// BenchmarkVictim measures a push by one tenant while another, in a repository of its own, does
// its worst about the same image, one request after the other. It reports the median and the slowest
// push, and the median as a multiple of the one without the attack: the two take turns.
func BenchmarkVictim(b *testing.B) {
	for name, request := range attacks {
		b.Run(name, func(b *testing.B) {
			key, other := signtest.NewKey(b, "ecdsa-p256"), signtest.NewKey(b, "ecdsa-p256")
			path := filepath.Join(b.TempDir(), "key.pub")
			writeFile(b, path, key.PEM())
			s := startWithConfig(b, strings.ReplaceAll(keyConfig(path), "registryhost: ADDR", "registryhost: registry.example.com"))
			image := digest.Digest(pushSmallImage(s, "victim/app", "victim"))
			pushSmallImage(s, "attacker/app", "victim")
			s.pushArtifact("victim/app", signtest.ClassicTag(image), signtest.Classic(key.Cosign(signtest.CosignPayload(image, "registry.example.com/victim/app", nil))))
			manifest := s.manifest("victim/app", "latest")

			var under atomic.Bool
			var attacker sync.WaitGroup
			stop, made := make(chan struct{}), 0
			attacker.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if !under.Load() {
						time.Sleep(time.Millisecond)
						continue
					}
					request(attack{s, image, other})
					made++
				}
			})
			var alone, attacked []time.Duration
			n := 0
			for b.Loop() {
				under.Store(n/20%2 == 1)
				start := time.Now()
				if got := s.putManifest("victim/app", fmt.Sprint("t", n%50), imagespec.MediaTypeImageManifest, manifest); got.code != http.StatusCreated {
					b.Errorf("a push fails: %d %s", got.code, got.body)
				}
				if took := time.Since(start); under.Load() {
					attacked = append(attacked, took)
				} else {
					alone = append(alone, took)
				}
				n++
			}
			close(stop)
			attacker.Wait()
			if trusted := s.image(image.String()).Annotations["tallyman.dev/trusted"]; !slices.Contains(strings.Split(trusted, ","), "victim/app") {
				b.Errorf("the victim's image is trusted in %q only", trusted)
			}
			if len(attacked) == 0 {
				return // too few pushes to tell
			}
			slices.Sort(alone)
			slices.Sort(attacked)
			milliseconds := func(d time.Duration) float64 { return math.Round(d.Seconds()*1e5) / 100 }
			b.ReportMetric(milliseconds(attacked[len(attacked)/2]), "ms-median")
			b.ReportMetric(milliseconds(attacked[len(attacked)-1]), "ms-slowest")
			b.ReportMetric(float64(attacked[len(attacked)/2])/float64(alone[len(alone)/2]), "x-alone")
			b.ReportMetric(float64(made), "attacks")
		})
	}
}
