package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/signatures/signtest"
	"tallyman/storage/redis/redistest"
)

var kills = flag.Int("kills", 6, "times that TestKilled kills the server on each store")

// killed is a registry whose process is killed amid changes, and the content that they are of.
type killed struct {
	*server
	repositories []string
	images       []string            // manifests, of which all configs are there
	signatures   []signtest.Artifact // of each image
}

func newKilled(t *testing.T, s *server) *killed {
	t.Helper()
	k := &killed{server: s, repositories: []string{"team/app", "team/app/base", "other"}}
	key := signtest.NewKey(t, "ecdsa-p256")
	for n := range 4 {
		config, manifest := smallImage(fmt.Sprint("image ", n))
		signature := signtest.Classic(key.Cosign(signtest.CosignPayload(digest.FromString(manifest), "registry.example.com/team/app", nil)))
		k.images, k.signatures = append(k.images, manifest), append(k.signatures, signature)
		for _, repository := range k.repositories {
			s.pushBlob(repository, []byte(config))
			for _, blob := range signature.Blobs {
				s.pushBlob(repository, blob)
			}
		}
	}
	return k
}

// change makes a random change, whose answer may not come.
func (k *killed) change(random *rand.Rand) {
	repository, n := k.repositories[random.IntN(len(k.repositories))], random.IntN(len(k.images))
	name := digest.FromString(k.images[n])
	do := func(method, reference, body string) {
		_, _ = k.try(method, "/v2/"+repository+"/manifests/"+reference, body, http.Header{"Content-Type": {imagespec.MediaTypeImageManifest}})
	}
	tag := fmt.Sprint("v", random.IntN(3))
	switch random.IntN(10) {
	case 0, 1, 2, 3: // a push or a move
		do(http.MethodPut, tag, k.images[n])
	case 4:
		do(http.MethodPut, name.String(), k.images[n])
	case 5:
		do(http.MethodDelete, tag, "")
	case 6:
		do(http.MethodDelete, name.String(), "")
	case 7, 8:
		do(http.MethodPut, signtest.ClassicTag(name), string(k.signatures[n].Manifest))
	case 9:
		do(http.MethodDelete, signtest.ClassicTag(name), "")
	}
}

// holds reports whether the registry has a manifest in a repository by a tag or a digest, and which.
func (k *killed) holds(repository, reference string) (name string, err error) {
	got, err := k.try(http.MethodHead, "/v2/"+repository+"/manifests/"+reference, "", http.Header{"Accept": {imagespec.MediaTypeImageManifest}})
	switch {
	case err != nil:
		return "", err
	case got.code == http.StatusOK:
		return got.header.Get("Docker-Content-Digest"), nil
	case got.code == http.StatusNotFound:
		return "", nil
	}
	return "", fmt.Errorf("HEAD of %s in %s: %d", reference, repository, got.code)
}

// agrees compares the registry with the image tags and the Images.
func (k *killed) agrees() error {
	var wrong []error
	tagged, held := map[string][]string{}, map[string][]string{} // by image
	for _, repository := range k.repositories {
		var list struct{ Tags []string }
		if got, err := k.try(http.MethodGet, "/v2/"+repository+"/tags/list", "", nil); err != nil {
			return err
		} else if got.code == http.StatusOK && json.Unmarshal([]byte(got.body), &list) != nil {
			return errors.New(got.body)
		}
		namespace, stream, _ := strings.Cut(strings.ReplaceAll(repository, "/app/", "/app.."), "/")
		if stream == "" {
			namespace, stream = "default", repository
		}
		records, err := k.tags(namespace).List(k.t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		known := map[string]string{}
		for _, tag := range records.Items {
			if name, ok := strings.CutPrefix(tag.Name, stream+":"); ok {
				known[name] = tag.Status.Items[0].Image
			}
		}
		for _, tag := range list.Tags {
			to, err := k.holds(repository, tag)
			if err != nil {
				return err
			}
			if to == "" {
				continue // its manifest was deleted
			}
			if known[tag] != to {
				wrong = append(wrong, fmt.Errorf("%s:%s is %s, its record says %s", repository, tag, to, known[tag]))
			}
			delete(known, tag)
			tagged[to] = append(tagged[to], repository+":"+tag)
		}
		for tag, to := range known {
			if name, err := k.holds(repository, tag); err != nil || name == "" && !slices.Contains(list.Tags, tag) {
				wrong = append(wrong, errors.Join(err, fmt.Errorf("%s:%s is none, its record says %s", repository, tag, to)))
			}
		}
		for _, image := range k.images {
			name := digest.FromString(image).String()
			got, err := k.holds(repository, name)
			if err != nil {
				return err
			}
			if got != "" {
				held[name] = append(held[name], repository)
			}
		}
	}
	for n, content := range k.images {
		name := digest.FromString(content)
		image, err := k.server.images().Get(k.t.Context(), name.String(), metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if apierrors.IsNotFound(err) {
			image = &imagev1.Image{}
		}
		signed := false
		for _, repository := range k.repositories {
			to, err := k.holds(repository, signtest.ClassicTag(name))
			if err != nil {
				return err
			}
			signed = signed || to != ""
		}
		slices.Sort(tagged[name.String()])
		for _, differs := range []struct{ what, want, got string }{
			{"is in", strings.Join(held[name.String()], ","), image.Annotations["tallyman.dev/repositories"]},
			{"has tags", strings.Join(tagged[name.String()], ","), image.Annotations["tallyman.dev/tags"]},
			{"is signed", fmt.Sprint(signed && len(held[name.String()]) > 0), fmt.Sprint(len(image.Signatures) > 0)},
		} {
			want, got := strings.Split(differs.want, ","), strings.Split(differs.got, ",")
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) {
				wrong = append(wrong, fmt.Errorf("image %d (%s) %s %v, the Image says %v", n, name, differs.what, want, got))
			}
		}
	}
	return errors.Join(wrong...)
}

// TestKilled kills the server amid pushes, moves, untags, deletions and signatures. After a restart,
// registry, image tags and Images agree soon, in both directions.
func TestKilled(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func() *server{
		"bolt": func() *server { return startServer(t) },
		"redis": func() *server {
			return startReplicas(t, 1, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))[0]
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKilled(t, start())
			random := rand.New(rand.NewPCG(1, uint64(len(name))))
			slowest := time.Duration(0)
			for round := range *kills {
				stop := make(chan struct{})
				var clients sync.WaitGroup
				for client := range 4 {
					own := rand.New(rand.NewPCG(uint64(round), uint64(client)))
					clients.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
								k.change(own)
							}
						}
					})
				}
				time.Sleep(100*time.Millisecond + time.Duration(random.IntN(400))*time.Millisecond)
				k.kill()
				close(stop)
				clients.Wait()
				k.start()
				restarted := time.Now()
				eventually(t, fmt.Sprintf("registry and records agree after kill %d", round), k.agrees)
				slowest = max(slowest, time.Since(restarted))
			}
			t.Logf("%d kills; the slowest agreement took %s", *kills, slowest.Round(time.Millisecond))
		})
	}
}
