package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// aggregated is a cluster with tallyman behind its aggregator, by the manifests that we ship.
// A cluster without nodes runs no pods, so that the Service leads to a process beside it.
type aggregated struct {
	*cluster
	s       *server
	serving *authority // of tallyman
	overlay string     // a copy of overlays/single, with its files
	log     string     // tallyman's audit log
}

// auditEverything records the user and the object of every request.
const auditEverything = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"

func startAggregated(t *testing.T) *aggregated {
	t.Helper()
	a := &aggregated{cluster: startCluster(t), serving: newAuthority(t, "tallyman-ca")}
	dir := manifests(t, a.serving)
	a.overlay = filepath.Join(dir, "overlays", "single")
	addr := freeAddress(t)
	_, port, _ := strings.Cut(addr, ":")
	test := filepath.Join(dir, "overlays", "test")
	if err := os.Mkdir(test, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(test, "kustomization.yaml"), `
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../single]
patches:
  - target: {kind: Service, name: tallyman}
    patch: |
      - {op: replace, path: /spec, value: {type: ExternalName, externalName: localhost}}
  - target: {kind: APIService}
    patch: |
      - {op: replace, path: /spec/service/port, value: `+port+`}
`)
	a.kubectl("apply", "-k", test)
	a.s = a.newServer(addr)
	a.s.start()
	return a
}

// newServer is tallyman with the configuration that the overlay gives it, at the paths
// that there are here. It reaches the cluster with the token of its ServiceAccount.
func (a *aggregated) newServer(addr string) *server {
	a.t.Helper()
	dir := a.t.TempDir()
	a.log = filepath.Join(dir, "audit.log")
	writeFile(a.t, filepath.Join(dir, "policy.yaml"), auditEverything)
	config, err := os.ReadFile(filepath.Join(a.overlay, "config.yml"))
	if err != nil {
		a.t.Fatal(err)
	}
	path := filepath.Join(dir, "config.yml")
	writeFile(a.t, path, strings.NewReplacer(
		":5000", addr, "/var/lib/registry", dir, "/etc/tallyman/tls", a.overlay, "/etc/tallyman/users", a.overlay).Replace(string(config)))
	return &server{
		t: a.t, dir: dir, addr: addr, args: []string{"serve", "--data-dir", dir, path}, scheme: "https", httpClient: a.serving.trusting(),
		env: []string{
			"REGISTRY_IMAGEAPI_AUTH_DELEGATION_KUBECONFIGFILE=" + a.tokenKubeconfig("tallyman", "tallyman"),
			"REGISTRY_IMAGEAPI_AUDIT_POLICYFILE=" + filepath.Join(dir, "policy.yaml"),
			"REGISTRY_IMAGEAPI_AUDIT_LOGPATH=" + a.log,
		},
	}
}

// push pushes an index with a word in it as the registry's user, and returns its digest.
func (a *aggregated) push(word string) string {
	a.t.Helper()
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"annotations":{"word":%q}}`, word)
	request, err := http.NewRequestWithContext(a.t.Context(), http.MethodPut, a.s.url("/v2/team/app/manifests/"+word), strings.NewReader(manifest))
	if err != nil {
		a.t.Fatal(err)
	}
	request.SetBasicAuth("clerk", "secret")
	request.Header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	response, err := a.s.httpClient.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		a.t.Fatalf("push: %s", response.Status)
	}
	return response.Header.Get("Docker-Content-Digest")
}

// available waits until the aggregator says that it reaches tallyman.
func (a *aggregated) available() {
	a.t.Helper()
	a.kubectl("wait", "apiservice/v1.image.openshift.io", "--for=condition=Available", "--timeout=60s")
}

// allowed wants a call of kubectl to succeed, and refused one to be answered 403. The
// cluster's answers are remembered for 10 s, so either may take that long.
func (a *aggregated) allowed(kubeconfig string, args ...string) string {
	a.t.Helper()
	var out string
	eventually(a.t, strings.Join(args, " ")+" is allowed", func() (err error) {
		if out, err = a.kubectlAs(kubeconfig, args...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return out
}

func (a *aggregated) refused(kubeconfig string, args ...string) {
	a.t.Helper()
	out, err := a.kubectlAs(kubeconfig, args...)
	if err == nil || !strings.Contains(out, "(Forbidden)") {
		a.t.Errorf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// audited returns the last event of a user.
func (a *aggregated) audited(name string) *auditv1.Event {
	a.t.Helper()
	var last *auditv1.Event
	eventually(a.t, name+" is in the audit log", func() error {
		file, err := os.Open(a.log)
		if err != nil {
			return err
		}
		defer file.Close()
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var event auditv1.Event
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				return err
			}
			if event.User.Username == name || event.ImpersonatedUser != nil && event.ImpersonatedUser.Username == name {
				last = &event
			}
		}
		if last == nil {
			return fmt.Errorf("there is nobody called %s", name)
		}
		return lines.Err()
	})
	return last
}

// TestAggregated runs tallyman behind a real kube-apiserver, by the manifests that we ship:
// the aggregator reaches it, and the cluster authorizes its users.
func TestAggregated(t *testing.T) {
	t.Parallel()
	a := startAggregated(t)
	a.available()
	first, second := a.push("first"), a.push("second")
	alice := a.userKubeconfig("alice", "devs")
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"kubectl", func(t *testing.T) { a.testKubectl(t, first, second) }},
		{"RBAC", func(t *testing.T) { a.testRBAC(t, alice, first, second) }},
		{"namespaces", a.testNamespaces},
		{"identity", func(t *testing.T) { a.testIdentity(t, first) }},
		{"informer", a.testInformer},
		{"admission", func(t *testing.T) { a.testAdmission(t, second) }},
		{"owners", func(t *testing.T) { a.testOwners(t, second) }},
		{"pruning", a.testPruning},
		{"deletion policies", a.testDeletion},
		{"garbage collection", a.testGarbageCollection},
		{"past the aggregator", a.testDirect},
		{"smuggled headers", a.testSmuggling},
		{"new certificate", a.testNewCertificate},
		{"pods", a.testPods},
		{"chart", a.testChart},
		{"cluster away", func(t *testing.T) { a.testClusterAway(t, first) }},
	} {
		t.Run(part.name, func(t *testing.T) {
			a.report(t)
			part.run(t)
		})
		a.report(t)
	}
}

// report has the helpers fail t.
func (a *aggregated) report(t *testing.T) {
	a.t, a.s.t, a.serving.t, a.clients.t, a.proxies.t = t, t, t, t, t
}

// testKubectl: through the aggregator kubectl discovers, reads, watches, changes and
// explains Images.
func (a *aggregated) testKubectl(t *testing.T, first, second string) {
	if got := a.kubectl("api-resources", "--api-group=image.openshift.io", "-o", "name"); !strings.Contains(got, "images.image.openshift.io") {
		t.Errorf("api-resources: %s", got)
	}
	got := a.kubectl("get", "images")
	for _, want := range []string{"IMAGE REFERENCE", first, second} {
		if !strings.Contains(got, want) {
			t.Errorf("get images lacks %s: %s", want, got)
		}
	}
	a.kubectl("patch", "image", first, "--type=merge", "-p", `{"metadata":{"annotations":{"example.com/owner":"me"}}}`)
	a.kubectl("label", "image", first, "team=blue")
	if got := a.kubectl("get", "images", "-l", "team=blue", "-o", `jsonpath={.items[*].metadata.annotations.example\.com/owner}`); got != "me" {
		t.Errorf("after a patch: %q", got)
	}
	eventually(t, "the aggregated OpenAPI has images", func() error {
		out, err := a.kubectlAs(a.kubeconfig, "explain", "images.signatures.conditions")
		if err != nil || !strings.Contains(out, "lastTransitionTime") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watching := exec.CommandContext(ctx, tool(t, "kubectl"), "get", "images", "--watch-only", "-o", "name")
	watching.Env = append(os.Environ(), "KUBECONFIG="+a.kubeconfig, "HOME="+t.TempDir())
	out, err := watching.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watching.Start(); err != nil {
		t.Fatal(err)
	}
	seen, lines := make(chan string, 1000), bufio.NewScanner(out)
	go func() {
		for lines.Scan() {
			seen <- lines.Text()
		}
		close(seen)
	}()
	// When the watch has begun nobody says, so push until it sees one.
	for i := 0; len(seen) == 0 && ctx.Err() == nil; i++ {
		a.push(fmt.Sprintf("watched%d", i))
		time.Sleep(200 * time.Millisecond)
	}
	if line := <-seen; !strings.HasPrefix(line, "image.image.openshift.io/sha256:") {
		t.Errorf("kubectl get --watch printed %q", line)
	}
	cancel()
	_ = watching.Wait() // it was told to end
}

// testRBAC: the cluster's RBAC allows and denies, by verb and by name.
func (a *aggregated) testRBAC(t *testing.T, alice, first, second string) {
	a.refused(alice, "get", "images")
	a.refused(alice, "get", "image", first)
	a.kubectl("create", "clusterrole", "one-image", "--verb=get,patch", "--resource=images.image.openshift.io", "--resource-name="+first)
	a.kubectl("create", "clusterrolebinding", "alice-one", "--clusterrole=one-image", "--user=alice")
	a.allowed(alice, "get", "image", first)
	a.allowed(alice, "annotate", "image", first, "example.com/by=alice")
	a.refused(alice, "get", "image", second)
	a.refused(alice, "get", "images")
	a.refused(alice, "delete", "image", first)
	a.kubectl("create", "clusterrolebinding", "devs", "--clusterrole=tallyman:image-reader", "--group=devs")
	a.allowed(alice, "get", "images")
	a.refused(alice, "delete", "image", first)
	a.refused(alice, "annotate", "image", second, "example.com/by=alice")
	if out, _ := a.kubectlAs(alice, "auth", "can-i", "list", "images.image.openshift.io"); !strings.HasSuffix(strings.TrimSpace(out), "yes") {
		t.Errorf("can-i list images: %s", out)
	}
	a.kubectl("delete", "clusterrolebinding", "devs")
	eventually(t, "what is taken back is refused", func() error {
		if out, err := a.kubectlAs(alice, "get", "images"); err == nil {
			return fmt.Errorf("alice still reads: %s", out)
		}
		return nil
	})
}

// testNamespaces: a RoleBinding of the cluster gives the image streams of its namespace, and nothing else.
func (a *aggregated) testNamespaces(t *testing.T) {
	a.push("namespaced")
	tina := a.userKubeconfig("tina", "reds")
	a.kubectl("create", "namespace", "team")
	a.kubectl("create", "namespace", "other")
	a.kubectl("create", "rolebinding", "viewers", "-n", "team", "--clusterrole=tallyman:registry-viewer", "--group=reds")
	if out := a.allowed(tina, "get", "imagestreamtags", "-n", "team", "-o", "name"); !strings.Contains(out, "imagestreamtag.image.openshift.io/app:namespaced") {
		t.Errorf("her tags: %s", out)
	}
	a.allowed(tina, "get", "is,itag", "-n", "team")
	a.allowed(tina, "auth", "can-i", "watch", "imagestreamtags.image.openshift.io", "-n", "team")
	for _, args := range []string{"get is -n other", "get istag -A", "get images", "get istag -n default app:v1"} {
		a.refused(tina, strings.Fields(args)...)
	}
	tag := filepath.Join(t.TempDir(), "tag.yml")
	writeFile(t, tag, `{apiVersion: image.openshift.io/v1, kind: ImageStreamTag, metadata: {name: "app:prod", namespace: other}, tag: {from: {kind: ImageStreamTag, namespace: team, name: "app:namespaced"}}}`)
	a.refused(tina, "create", "-f", tag)
	a.kubectl("create", "rolebinding", "editors", "-n", "other", "--clusterrole=tallyman:registry-editor", "--group=editors")
	uma := a.userKubeconfig("uma", "editors") // who may not read team
	if out, err := a.kubectlAs(uma, "create", "-f", tag); err == nil || !strings.Contains(out, "spec.tags[prod].from: Forbidden: team/app") {
		t.Errorf("uma: %s", out)
	}
	a.kubectl("create", "rolebinding", "editors", "-n", "team", "--clusterrole=tallyman:registry-viewer", "--group=editors")
	eventually(t, "uma tags an image of the other namespace", func() error { // the cluster's answers are remembered for a while
		_, err := a.kubectlAs(uma, "create", "-f", tag)
		return err
	})
	a.allowed(uma, "label", "is", "app", "-n", "other", "a=b")
	a.refused(uma, "label", "is", "app", "-n", "team", "a=b")
	a.allowed(uma, "delete", "is", "app", "-n", "other")
	if out, err := a.kubectlAs(uma, "get", "is", "app", "-n", "other"); err == nil || !strings.Contains(out, "NotFound") {
		t.Errorf("after the deletion: %s", out)
	}
}

// testIdentity: user, uid, groups and extra arrive as the cluster knows them, and are in the
// audit log; an impersonated user arrives as that user.
func (a *aggregated) testIdentity(t *testing.T, first string) {
	a.kubectl("get", "image", first, "--as=bob", "--as-group=devs", "--as-group=system:masters", "--as-uid=42", "--as-user-extra=example.com/reason=a test")
	event := a.audited("bob")
	if got := event.User.Groups; !slices.Equal(got, []string{"devs", "system:masters", "system:authenticated"}) {
		t.Errorf("groups are %v", got)
	}
	if got := event.User; got.UID != "42" || got.Extra["example.com/reason"].String() != "[a test]" {
		t.Errorf("uid is %q and extra is %v", got.UID, got.Extra)
	}
	if event.Verb != "get" || event.ObjectRef == nil || event.ObjectRef.Name != first || event.ResponseStatus.Code != http.StatusOK {
		t.Errorf("the event is %+v", event)
	}
	a.refused(a.userKubeconfig("mallory"), "get", "images", "--as=bob", "--as-group=system:masters")
}

// testInformer: a client that lists and watches through the aggregator sees a push.
func (a *aggregated) testInformer(t *testing.T) {
	config, err := clientcmd.BuildConfigFromFlags("", a.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	watching, err := imageclientFor(t, config).Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watching.Stop()
	name := a.push("informed")
	for event := range watching.ResultChan() {
		if nameOf(event) == name {
			return
		}
	}
	t.Error("the watch ended before the push came by")
}

// testDirect: requests past the aggregator are authenticated by the cluster's client
// certificates and tokens all the same, and authorized by the cluster.
func (a *aggregated) testDirect(t *testing.T) {
	kubeconfigs, err := clientcmd.LoadFromFile(a.userKubeconfig("carol", "devs"))
	if err != nil {
		t.Fatal(err)
	}
	direct := func(name string, who *clientcmdapi.AuthInfo) string {
		return a.writeKubeconfig(name, "https://"+a.s.addr, a.serving.file, who)
	}
	byCertificate := direct("carol", kubeconfigs.AuthInfos["u"])
	if out := a.allowed(byCertificate, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups[*]}"); out != "carol devs system:authenticated" {
		t.Errorf("by certificate: %s", out)
	}
	a.refused(byCertificate, "get", "images")
	a.refused(byCertificate, "get", "images", "--as=bob")
	a.kubectl("create", "namespace", "ci")
	a.kubectl("create", "serviceaccount", "scanner", "-n", "ci")
	byToken := direct("scanner", &clientcmdapi.AuthInfo{Token: a.token("ci", "scanner")})
	a.refused(byToken, "get", "images")
	a.kubectl("create", "clusterrolebinding", "scanner", "--clusterrole=tallyman:image-reader", "--serviceaccount=ci:scanner")
	a.allowed(byToken, "get", "images")
	if got := a.audited("system:serviceaccount:ci:scanner").User; !slices.Contains(got.Groups, "system:serviceaccounts:ci") || got.Extra["authentication.kubernetes.io/credential-id"] == nil {
		t.Errorf("by token: %+v", got)
	}
	if out, err := a.kubectlAs(direct("forged", &clientcmdapi.AuthInfo{Token: "forged"}), "get", "--raw", api+"/images"); err == nil {
		t.Errorf("a token that the cluster does not know is believed: %s", out)
	}
}

// testSmuggling: the headers of the aggregator mean nothing from anybody else.
func (a *aggregated) testSmuggling(t *testing.T) {
	header := http.Header{"X-Remote-User": {"root"}, "X-Remote-Group": {"system:masters"}}
	for name, test := range map[string]struct {
		client *http.Client
		want   string
	}{
		"without a certificate":                  {a.s.httpClient, "401"},
		"with a user's":                          {a.clients.client(a.serving, "eve"), "eve system:authenticated"},
		"with one of the aggregator's authority": {a.proxies.client(a.serving, "not-the-proxy"), "401"},
		"with the aggregator's":                  {a.proxies.client(a.serving, "front-proxy"), "root system:masters,system:authenticated"},
	} {
		if got := whoami(t, test.client, a.s.url(""), header); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

// testNewCertificate: a renewed certificate is served without a restart.
func (a *aggregated) testNewCertificate(t *testing.T) {
	before := certificateOf(t, a.s)
	a.serving.writePair(a.overlay)
	eventually(t, "the new certificate is served", func() error {
		if certificateOf(t, a.s) == before {
			return fmt.Errorf("it is the old one")
		}
		return nil
	})
	a.available()
	a.kubectl("get", "images")
}

func certificateOf(t *testing.T, s *server) string {
	t.Helper()
	s.httpClient.CloseIdleConnections()
	response, err := s.httpClient.Get(s.url("/livez"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.TLS.PeerCertificates[0].SerialNumber.String()
}

// testClusterAway: while kube-apiserver is away pushes go on, also after a restart, and
// its users are not let in; when it is back all is as it was.
func (a *aggregated) testClusterAway(t *testing.T, first string) {
	dave := a.clients.client(a.serving, "dave")
	a.stopAPIServer()
	a.push("while-away")
	response, err := dave.Get(a.s.url(api + "/images"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusInternalServerError || strings.Contains(string(body), a.addr) || !strings.Contains(string(body), "does not answer") {
		t.Errorf("who cannot be asked about is answered %s: %s", response.Status, body)
	}
	a.s.stop()
	a.s.start()
	a.push("started-while-away")
	if log := a.s.logText(); !strings.Contains(log, "cluster authentication not loaded") {
		t.Errorf("the log does not say that the cluster is away: %s", tail(log, 10))
	}
	if got := whoami(t, a.proxies.client(a.serving, "front-proxy"), a.s.url(""), http.Header{"X-Remote-User": {"root"}, "X-Remote-Group": {"system:masters"}}); got != "403" && got != "401" {
		t.Errorf("without the cluster's ConfigMap a front proxy is trusted: %s", got)
	}
	a.startAPIServer()
	a.available()
	a.allowed(a.kubeconfig, "get", "image", first)
}
