package e2e

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BenchmarkVictim measures a push by one tenant while another, in a repository of its own, does
// its worst about the same image, one request after the other. It reports the median and the slowest
// push, and the median as a multiple of the one without the attack: the two take turns.
func BenchmarkVictim(b *testing.B) {
	for name, request := range attacks {
		b.Run(name, func(b *testing.B) {
			a, image := startAttacked(b)
			s := a.s
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
					request(a)
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
