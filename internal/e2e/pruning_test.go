package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"tallyman/storage/redis/redistest"
)

// TestPruneBlobs sends the deletions of `oc adm prune images` to a registry that is pushed to meanwhile: blobs go that
// no repository has, and an image that was pushed is whole.
func TestPruneBlobs(t *testing.T) {
	t.Parallel()
	t.Run(onBolt, func(t *testing.T) {
		testPruneBlobs(t, startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n"))
	})
	t.Run(onRedis, func(t *testing.T) { // with distribution's cache of blobs in it
		redis := redistest.Start(t, "redis-server")
		s := outageServer(t, redis, "reject")
		cache := goredis.NewClient(&goredis.Options{Addr: redis.Addr})
		defer cache.Close()
		testPruneBlobs(t, s)
		blob := s.pushBlob("team/app", []byte("cached"))
		s.deleteAsPruner("/v2/team/app/blobs/" + blob)
		if err := cache.HSet(t.Context(), "blobs::"+blob, "digest", blob, "size", "6").Err(); err != nil { // as a push sets it that breaks off
			t.Fatal(err)
		}
		if got := s.deleteAsPruner("/admin/blobs/" + blob); got != http.StatusNoContent {
			t.Errorf("a cached blob: %d", got)
		}
		if left, err := cache.HGetAll(t.Context(), "blobs::"+blob).Result(); err != nil || len(left) > 0 {
			t.Errorf("the cache has %v, %v", left, err)
		}
	})
}

// deleteAsPruner sends a DELETE with the administrator's token as a password, and returns the status.
func (s *server) deleteAsPruner(path string) int {
	s.t.Helper()
	return s.request(http.MethodDelete, path, "", http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("unused:"+s.restConfig().BearerToken))}}).code
}

func testPruneBlobs(t *testing.T, s *server) {
	remove := s.deleteAsPruner
	other := s.addr + "/team/other:v1"
	crane(t, "append", "-f", layerTar(t, "shared"), "-t", other)
	parts := func(reference string) (blobs []string) {
		var m struct {
			Config struct{ Digest string }
			Layers []struct{ Digest string }
		}
		if err := json.Unmarshal([]byte(command(t, nil, "crane", "manifest", reference)), &m); err != nil {
			t.Fatal(err)
		}
		blobs = []string{m.Config.Digest}
		for _, layer := range m.Layers {
			blobs = append(blobs, layer.Digest)
		}
		return blobs
	}
	app := s.addr + "/team/app:v1"
	push := func() error { // on two layers, one of which is in both images
		_, err := tryCommand(t, nil, "crane", "append", "-f", layerTar(t, "own"), "-b", other, "-t", app)
		return err
	}
	if err := push(); err != nil {
		t.Fatal(err)
	}
	digest, all, shared := crane(t, "digest", app), parts(app), parts(other)[1]
	prune := func() (statuses []int) {
		for _, blob := range all {
			remove("/v2/team/app/blobs/" + blob)
		}
		remove("/v2/team/app/manifests/" + digest)
		for _, blob := range append(all, digest) {
			statuses = append(statuses, remove("/admin/blobs/"+blob))
		}
		return statuses
	}
	if blob := all[0]; remove("/admin/blobs/"+blob) != http.StatusConflict {
		t.Error("a blob that is in use is deleted")
	}
	if got := fmt.Sprint(prune()); got != "[204 409 204 204]" || all[1] != shared {
		t.Errorf("the configuration, a shared layer, the other one and the manifest: %s", got)
	}
	if out, err := tryCommand(t, nil, "crane", "validate", "--remote", other); err != nil {
		t.Errorf("the other image: %s %v", out, err)
	}
	for range 5 {
		var pruned sync.WaitGroup
		pruned.Go(func() {
			for range 5 {
				prune()
			}
		})
		for range 5 {
			_ = push() // it may be told that a blob is gone
		}
		pruned.Wait()
		eventually(t, "the image is pushed once more", push)
		eventually(t, "it is whole", func() error { // a blob may be aside for a minute
			out, err := tryCommand(t, nil, "crane", "validate", "--remote", app)
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
	}
	if out, err := tryCommand(t, nil, "crane", "validate", "--remote", other); err != nil {
		t.Errorf("the other image: %s %v", out, err)
	}
}

// testPruning: a user of the cluster that may delete Images may delete manifests and blobs in the registry with the
// token as password, as `oc adm prune images` does, and may do nothing else there. Others may not.
func (a *aggregated) testPruning(t *testing.T) {
	digest := a.push("pruned")
	a.kubectl("create", "namespace", "pruning")
	for _, name := range []string{"pruner", "reader"} {
		a.kubectl("create", "serviceaccount", name, "-n", "pruning")
	}
	a.kubectl("create", "clusterrolebinding", "pruner", "--clusterrole=tallyman:image-pruner", "--serviceaccount=pruning:pruner")
	a.kubectl("create", "clusterrolebinding", "reader", "--clusterrole=tallyman:image-reader", "--serviceaccount=pruning:reader")
	pruner, reader := a.token("pruning", "pruner"), a.token("pruning", "reader")
	send := func(token, method, path string) int {
		request, err := http.NewRequestWithContext(t.Context(), method, a.s.url(path), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.SetBasicAuth("unused", token)
		response, err := a.s.httpClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	manifest := "/v2/team/app/manifests/" + digest
	for _, refused := range []struct{ token, method, path string }{
		{reader, http.MethodDelete, manifest},
		{"wrong", http.MethodDelete, manifest},
		{pruner, http.MethodGet, manifest},
		{pruner, http.MethodPut, "/v2/team/app/manifests/another"},
		{pruner, http.MethodPost, "/v2/team/app/blobs/uploads/"},
		{pruner, http.MethodGet, "/v2/_catalog"},
	} {
		if got := send(refused.token, refused.method, refused.path); got != http.StatusUnauthorized {
			t.Errorf("%s %s: %d", refused.method, refused.path, got)
		}
	}
	eventually(t, "the pruner may delete", func() error { // the cluster's answers are remembered
		if got := send(pruner, http.MethodDelete, manifest); got != http.StatusAccepted {
			return fmt.Errorf("%s: %d", manifest, got)
		}
		return nil
	})
	if got := send(pruner, http.MethodDelete, "/v2/team/app/blobs/sha256:"+strings.Repeat("0", 64)); got != http.StatusNotFound {
		t.Errorf("a layer link that is not there: %d", got)
	}
	if out, err := a.kubectlAs(a.kubeconfig, "get", "image", digest); err == nil {
		t.Errorf("the Image is there still: %s", out)
	}
}
