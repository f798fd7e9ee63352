package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

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
