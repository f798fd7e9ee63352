package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// TestAudit: requests to the API by a Kubernetes audit policy, changes in the registry
// by a line each; and no credentials in either.
func TestAudit(t *testing.T) {
	dir := t.TempDir()
	policy, trail, users := filepath.Join(dir, "policy.yml"), filepath.Join(dir, "audit.log"), filepath.Join(dir, "htpasswd")
	writeFile(t, policy, `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, nonResourceURLs: ["/livez*", "/readyz*"]}
- {level: RequestResponse, resources: [{group: image.openshift.io, resources: [images]}]}
- {level: Metadata}
`)
	hash, err := bcrypt.GenerateFromPassword([]byte("hidden-password"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, users, "clerk:"+string(hash)+"\n")
	s := startWithConfig(t, plainConfig+"auth: {htpasswd: {realm: test, path: "+users+"}}\nimageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, audit: {policyfile: '"+policy+"', logpath: '"+trail+"'}}\n")
	login := []string{"DOCKER_CONFIG=" + dir}
	command(t, login, "crane", "auth", "login", s.addr, "-u", "clerk", "-p", "hidden-password")
	pushed := command(t, login, "crane", "append", "-f", layerTar(t, "audit"), "-t", s.addr+"/ns/app:v1")
	_, name, _ := strings.Cut(strings.TrimSpace(lastLine(pushed, s.addr)), "@")
	s.kubectl("get", "image", name, "-o", "json")
	s.kubectl("get", "images")
	s.kubectl("annotate", "image", name, "a=b")
	if got := s.request(http.MethodGet, api+"/images", "", http.Header{"Authorization": {"Bearer hidden-token"}}); got.code != 401 {
		t.Errorf("a wrong token: %d", got.code)
	}
	if got := s.request(http.MethodGet, api+"/images", "", nil); got.code != 401 {
		t.Errorf("no credentials: %d %s", got.code, got.body)
	}
	command(t, login, "crane", "delete", s.addr+"/ns/app@"+name)
	s.stop()
	content, err := os.ReadFile(trail)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]auditv1.Event{}
	for line := range strings.Lines(string(content)) {
		var event auditv1.Event
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		key := event.Verb
		if event.ResponseStatus != nil && event.ResponseStatus.Code == 401 {
			key = "refused"
			if event.User.Username == "system:anonymous" {
				key = "told to log in"
			}
		}
		if event.ObjectRef == nil || event.ObjectRef.Resource == "images" {
			seen[key] = event
		}
	}
	for verb, user := range map[string]string{"get": "admin", "list": "admin", "patch": "admin", "refused": "", "told to log in": "system:anonymous"} {
		event, ok := seen[verb]
		if !ok || event.User.Username != user {
			t.Errorf("%s: %+v", verb, event)
		}
	}
	if patch := seen["patch"]; patch.RequestObject == nil || patch.ResponseObject == nil || !strings.Contains(string(patch.ResponseObject.Raw), name) {
		t.Errorf("the patch is recorded as %+v", patch)
	}
	if get := seen["get"]; get.ObjectRef == nil || get.ObjectRef.Name != name || get.ResponseObject == nil || !strings.Contains(string(get.ResponseObject.Raw), name) {
		t.Errorf("the read is recorded as %+v", get)
	}
	lines := map[string]bool{}
	for line := range strings.Lines(s.logText()) {
		if strings.Contains(line, "registry audit") && strings.Contains(line, "auth.user.name=clerk") && strings.Contains(line, "repository=ns/app") && strings.Contains(line, "outcome=success") && strings.Contains(line, name) {
			for _, verb := range []string{"push", "delete"} {
				lines[verb] = lines[verb] || strings.Contains(line, "verb="+verb)
			}
		}
	}
	if !lines["push"] || !lines["delete"] {
		t.Errorf("the registry's audit lines are %v", lines)
	}
	token := s.restConfig().BearerToken
	for what, text := range map[string]string{"audit": string(content), "log": s.logText()} {
		for _, secret := range []string{"hidden-password", "hidden-token", token, string(hash)} {
			if strings.Contains(text, secret) {
				t.Errorf("a secret is in the %s", what)
			}
		}
	}
}
