package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestTagsList: tags/list is answered from the records, with the bytes and pages of distribution on the
// same storage. A deletion by digest looks at no other tag.
func TestTagsList(t *testing.T) {
	t.Parallel()
	debug := freeAddress(t)
	s := startWithConfig(t, plainConfig+"imageapi: {registryhost: registry.example.com, catalog: store, auth: {kubeconfigfile: DIR/kubeconfig}}\n",
		"REGISTRY_HTTP_DEBUG_ADDR="+debug, "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED=true")
	if out, err := s.resync(""); err != nil { // then the records are complete
		t.Fatalf("%v\n%s", err, out)
	}
	plain := &server{t: t, addr: startPlainRegistry(t, "", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY="+s.dir+"/registry")}
	config, one := smallImage("one")
	s.pushBlob("team/app", []byte(config))
	for _, tag := range []string{"v1", "v1-x", "v1.0", "v10", "V1", "_a", "a__b", "z"} {
		s.putManifest("team/app", tag, imagespec.MediaTypeImageManifest, one)
	}
	otherConfig, two := smallImage("two")
	s.pushBlob("team/app", []byte(otherConfig))
	for i := range 200 {
		s.putManifest("team/app", fmt.Sprint("other-", i), imagespec.MediaTypeImageManifest, two)
	}
	s.pushBlob("team/app-x", []byte(config)) // whose name continues the other's
	s.putManifest("team/app-x", "v1", imagespec.MediaTypeImageManifest, one)
	lists := []string{"", "?n=0", "?n=1", "?n=3&last=V1", "?n=208", "?n=209", "?last=v1", "?last=v1-x&n=1", "?last=zzz", "?last=zzz&n=5", "?n=-1", "?n=x", "?last=v1%2Fx", "?last=%FF"}
	compare := func(when string) {
		t.Helper()
		for _, repository := range []string{"team/app", "team/app-x", "team/none", "team"} {
			for _, query := range lists {
				path := "/v2/" + repository + "/tags/list" + query
				ours, theirs := s.request(http.MethodGet, path, "", nil), plain.request(http.MethodGet, path, "", nil)
				next := strings.Replace(theirs.header.Get("Link"), plain.addr, s.addr, 1)
				if ours.code != theirs.code || ours.body != theirs.body || ours.header.Get("Link") != next {
					t.Errorf("%s: %s: %d %s %s, want %d %s %s", when, path, ours.code, ours.header.Get("Link"), ours.body, theirs.code, next, theirs.body)
				}
			}
		}
	}
	compare("at first")
	calls := func(action string) float64 {
		t.Helper()
		n, err := metric(debug, "registry_storage_action_seconds", "action="+action)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := os.RemoveAll(s.dir + "/registry/docker/registry/v2/repositories/team/app/_manifests/tags/z"); err != nil {
		t.Fatal(err)
	}
	if got := s.request(http.MethodGet, "/v2/team/app/tags/list", "", nil); !strings.Contains(got.body, `"z"`) {
		t.Errorf("tags/list looks into the storage: %s", got.body)
	}
	s.putManifest("team/app", "z", imagespec.MediaTypeImageManifest, one)
	reads := calls("GetContent")
	s.deleteManifest("team/app", digest.FromString(one).String())
	if reads = calls("GetContent") - reads; reads < 1 || reads > 100 {
		t.Errorf("the deletion read %v files", reads)
	}
	compare("after a deletion by digest")
	s.deleteManifest("team/app", "other-7")
	compare("after a deletion by tag")
	if got := s.request(http.MethodGet, "/v2/team/app/tags/list", "", nil); strings.Contains(got.body, `"v1"`) || !strings.Contains(got.body, `"other-8"`) {
		t.Errorf("left are %s", got.body)
	}

	// _catalog has the repositories with tags, by components.
	s.pushBlob("team/app/sub", []byte(config))
	s.putManifest("team/app/sub", "v1", imagespec.MediaTypeImageManifest, one)
	s.pushBlob("team/untagged", []byte(config))
	s.putManifest("team/untagged", digest.FromString(one).String(), imagespec.MediaTypeImageManifest, one)
	s.pushBlob("team/gone", []byte(config))
	s.putManifest("team/gone", "v1", imagespec.MediaTypeImageManifest, one)
	s.deleteManifest("team/gone", "v1")
	for query, want := range map[string]string{
		"":                            `["team/app","team/app/sub","team/app-x"]`,
		"?n=2":                        `["team/app","team/app/sub"]`,
		"?n=2&last=team%2Fapp%2Fsub":  `["team/app-x"]`,
		"?n=3":                        `["team/app","team/app/sub","team/app-x"]`,
		"?last=team%2Fapp-x":          `[]`,
		"?n=1&last=team%2Fapp%2Fnone": `["team/app/sub"]`,
	} {
		got := s.request(http.MethodGet, "/v2/_catalog"+query, "", nil)
		if got.code != http.StatusOK || strings.TrimSpace(got.body) != `{"repositories":`+want+`}` {
			t.Errorf("_catalog%s: %d %s, want %s", query, got.code, got.body, want)
		}
		if next, more := got.header.Get("Link"), strings.HasPrefix(query, "?n") && query != "?n=2&last=team%2Fapp%2Fsub"; (next != "") != more {
			t.Errorf("_catalog%s: Link is %q", query, next)
		}
	}
}
