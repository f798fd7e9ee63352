package e2e

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// TestImmutableTags: clients are told why a push is refused, and the tag stays.
func TestImmutableTags(t *testing.T) {
	t.Parallel()
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, tags: [{repositories: ['prod/*'], tags: ['v*'], immutable: true}]}\n")
	_, other := smallImage("other")
	name := pushSmallImage(s, "prod/app", "one")
	pushSmallImage(s, "prod/app", "other") // :latest moves
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	_, one := smallImage("one")
	for range 2 {
		if got := s.putManifest("prod/app", "v1", mediaType, one); got.code != http.StatusCreated {
			t.Fatalf("%d %s", got.code, got.body)
		}
	}
	for what, got := range map[string]answer{
		"a move":                     s.putManifest("prod/app", "v1", mediaType, other),
		"an untag":                   s.request(http.MethodDelete, "/v2/prod/app/manifests/v1", "", nil),
		"a deletion of the manifest": s.request(http.MethodDelete, "/v2/prod/app/manifests/"+name, "", nil),
	} {
		if got.code != http.StatusForbidden || !strings.Contains(got.body, `"code":"DENIED"`) || !strings.Contains(got.body, "tag v1 of prod/app is immutable") || !strings.Contains(got.body, name) {
			t.Errorf("%s: %d %s", what, got.code, got.body)
		}
	}
	eventually(t, "the access log has the statuses that clients got", func() error {
		if log := s.logText(); strings.Count(log, `HTTP/1.1" 403 `) != 3 || strings.Contains(log, `HTTP/1.1" 500 `) {
			return errors.New(log)
		}
		return nil
	})
	for client, args := range map[string][]string{
		"crane":  {"tag", "--insecure", s.addr + "/prod/app:latest", "v1"},
		"oras":   {"tag", "--plain-http", s.addr + "/prod/app:latest", "v1"},
		"skopeo": {"copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://" + s.addr + "/prod/app:latest", "docker://" + s.addr + "/prod/app:v1"},
	} {
		if out, err := tryCommand(t, nil, client, args...); err == nil || !strings.Contains(out, "immutable") {
			t.Errorf("%s: %v: %s", client, err, out)
		}
	}
	if tags := s.image(name).Annotations["tallyman.dev/tags"]; tags != "prod/app:v1" {
		t.Errorf("the tags of the image are %s", tags)
	}
}
