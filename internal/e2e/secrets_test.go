package e2e

import (
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallyman/storage/redis/redistest"
)

// secretive has every kind of secret that tallyman takes, and says as much as it can.
const secretive = `
version: 0.1
log: {level: debug}
storage:
  filesystem: {rootdirectory: DIR/registry}
  delete: {enabled: true}
http:
  addr: ADDR
  secret: hidden-http-secret
  debug: {addr: DEBUG, prometheus: {enabled: true}}
auth: {htpasswd: {realm: test, path: USERS}}
redis: {addrs: [REDIS], password: hidden-redis-password}
imageapi:
  audit: {policyfile: DIR/policy.yml, logpath: DIR/audit.log}
  auth:
    kubeconfigfile: DIR/kubeconfig
    tokenfile: DIR/token
    tokenauthfile: DIR/tokens.csv
`

// TestSecretsStaySecret: right and wrong credentials, sent to both doors, are in no log,
// error, audit event, metric, debug page or shown configuration.
func TestSecretsStaySecret(t *testing.T) {
	redis := redistest.Start(t, "redis-server", "--requirepass", "hidden-redis-password")
	dir, debug, addr := t.TempDir(), freeAddress(t), freeAddress(t)
	config := filepath.Join(dir, "config.yml")
	for name, content := range map[string]string{
		"config.yml": strings.NewReplacer("ADDR", addr, "DEBUG", debug, "DIR", dir, "REDIS", redis.Addr, "USERS", htpasswdFile(t, "clerk", "hidden-right-password")).Replace(secretive),
		"policy.yml": "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n",
		"token":      "hidden-admin-token\n",
		"tokens.csv": "hidden-user-token,sam,1\n",
	} {
		writeFile(t, filepath.Join(dir, name), content)
	}
	s := &server{t: t, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"), args: []string{"serve", "--data-dir", dir, config}}
	s.start()
	secrets := []string{
		"hidden-http-secret", "hidden-redis-password", "hidden-right-password", "hidden-wrong-password", "hidden-admin-token", "hidden-user-token", "hidden-wrong-token",
		s.restConfig().BearerToken, "eyJoaWRkZW4",
	}
	var answers strings.Builder
	for _, credentials := range []string{
		basic("clerk", "hidden-right-password"), basic("clerk", "hidden-wrong-password"), "Bearer hidden-admin-token", "Bearer hidden-user-token",
		"Bearer hidden-wrong-token", "Bearer eyJoaWRkZW4iOjF9.eyJoaWRkZW4iOjF9.eyJoaWRkZW4", "Negotiate hidden-wrong-token",
	} {
		if kind, encoded, _ := strings.Cut(credentials, " "); kind == "Basic" {
			secrets = append(secrets, encoded)
		}
		for _, path := range []string{api + "/images", "/v2/_catalog", "/v2/a/manifests/v1", "/extensions/v2/a/signatures/sha256:" + strings.Repeat("a", 64), "/v2/a/referrers/x", "/openapi/v2x"} {
			for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost} {
				got := s.request(method, path, "{}", http.Header{"Authorization": {credentials}, "Content-Type": {"application/json"}, "X-Remote-User": {"root"}})
				answers.WriteString(got.body)
				for name, values := range got.header {
					answers.WriteString(name + strings.Join(values, " "))
				}
			}
		}
	}
	s.kubectl("get", "images")
	audit, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{
		"an answer": answers.String(), "the audit log": string(audit),
		"config show": command(t, []string{"PATH=" + os.Getenv("PATH")}, binary, "config", "show", config),
	}
	for _, path := range []string{"/metrics", "/debug/vars", "/debug/health", "/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1"} {
		response, err := http.Get("http://" + debug + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, response.Status, err)
		}
		response.Body.Close()
		places[path] = string(body)
	}
	s.stop()
	places["the log"] = s.logText()
	for place, content := range places {
		if place != "/debug/health" && len(content) < 100 && place != "/debug/pprof/cmdline" {
			t.Errorf("%s has only %q: nothing was looked at", place, content)
		}
		for _, secret := range secrets {
			if i := strings.Index(content, secret); i >= 0 {
				t.Errorf("%s has %s: …%s…", place, secret, content[max(0, i-150):min(len(content), i+150)])
			}
		}
	}
}

func basic(name, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
}
