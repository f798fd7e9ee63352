package e2e

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ocBinary runs OpenShift's oc and records its requests anew. Otherwise TestOC sends those that are recorded: see
// `make oc`.
var ocBinary = flag.String("oc", "", "a binary of oc, with which TestOC records the requests of oc anew")

// ocCommand is a command of oc. {OC}, {UPSTREAM} and {DIGEST} stand for the registry, another one, and the image
// app:v1.
type ocCommand struct {
	command string
	prints  string // in its output
	fails   bool
}

// ocCommands are in the order in which TestOC runs them.
var ocCommands = []ocCommand{
	{"get is -A", "b..c__d", false},
	{"get is,istag,imagetag -n demo", "app:v2", false},
	{"get images", "{DIGEST}", false},
	{"describe is app -n demo", "no spec tag", false},
	{"describe istag app:v1 -n demo", "{DIGEST}", false},
	{"describe isimage app@{DIGEST} -n demo", "{DIGEST}", false},
	{"describe image {DIGEST}", "{DIGEST}", false},
	{"tag -n demo app:v1 app:prod", "Tag app:prod set to app@{DIGEST}", false},
	{"tag -n demo app:v2 app:prod", "Tag app:prod set", false},
	{"tag demo/app:v1 other/copied:v1", "Tag other/copied:v1 set to demo/app@{DIGEST}", false},
	{"tag demo/app@{DIGEST} demo/app:digest", "Tag demo/app:digest set", false},
	{"tag -n demo --alias app:v1 app:alias", "set up to track app:v1", false},
	{"tag -n demo --reference app:v1 app:reference", "Tag app:reference set", false},
	{"tag default/solo:latest demo/solo:v1", "Tag demo/solo:v1 set to default/solo@", false},
	{"tag demo/app:v1 a/b..c__d:two", "Tag a/b..c__d:two set to demo/app@{DIGEST}", false},
	{"tag -n demo app:none app:x", "not currently pointing to an image", true},
	{"tag -n demo -d app:v2", "Deleted tag demo/app:v2", false},
	{"tag -n demo -d app:v2", "not found", true},
	{"tag -n demo --insecure --source=docker {UPSTREAM}/vendor/app:1.0 app:asked", "Tag app:asked set to {UPSTREAM}/vendor/app:1.0", false},
	{"tag -n demo --insecure --scheduled {UPSTREAM}/vendor/app:1.0 app:scheduled", "periodically", false},
	{"wait -n demo imagetag/app:asked imagetag/app:scheduled --for=jsonpath={.status.items[0].image} --timeout=100s", "condition met", false},
	{"import-image -n demo app:imported --from={UPSTREAM}/vendor/app:1.0 --confirm --insecure", "imported", false},
	{"import-image -n demo whole --from={UPSTREAM}/vendor/app --all --confirm --insecure", "imported", false},
	{"import-image -n demo app:imported", "imported", false},
	{"import-image -n demo none --from={UPSTREAM}/vendor/none:1 --confirm --insecure", "not found", true},
	{"import-image -n demo no --from=registry.example.com/app:1 --confirm", "not allowed by allow list", true},
	{"set image-lookup -n demo app", "image lookup updated", false},
	{"set image-lookup -n demo", "app", false},
	{"create imagestream -n demo made", "created", false},
	{"create imagestreamtag -n demo made:v1 --from=app:v1", "created", false},
	{"label is -n demo app team=blue", "labeled", false},
	{"annotate istag -n demo app:prod example.com/a=b", "annotated", false},
	{"patch is -n demo app --type=merge -p {\"spec\":{\"lookupPolicy\":{\"local\":false}}}", "patched", false},
	{"adm top imagestreams", "demo/app", false},
	{"delete istag -n demo app:alias --wait=false", "deleted", false},
	{"delete is -n demo made --wait=false", "deleted", false},
	{"registry info", "{OC}", false},
	{"whoami", "admin", false},
}

// exchange is a request of oc, and its answer.
type exchange struct {
	Method   string          `json:"method"`
	Path     string          `json:"path"` // with the query
	Accept   string          `json:"accept"`
	Type     string          `json:"type,omitempty"` // of the request
	Request  json.RawMessage `json:"request,omitempty"`
	Status   int             `json:"status"`
	Response json.RawMessage `json:"response,omitempty"`
}

// ocStep is a command of oc with its requests.
type ocStep struct {
	Command   string     `json:"command"`
	Exchanges []exchange `json:"exchanges"`
}

// TestOC: oc's requests for image streams, tags and images are answered as when oc itself was here, on names of each
// form, and the tags of the registry follow.
func TestOC(t *testing.T) {
	t.Parallel()
	upstream := startPlainRegistry(t, "")
	crane(t, "append", "--insecure", "-f", layerTar(t, "upstream"), "-t", upstream+"/vendor/app:1.0")
	crane(t, "append", "--insecure", "-f", layerTar(t, "newer"), "-t", upstream+"/vendor/app:1.1")
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, imports: {enabled: true, registries: [{host: '"+upstream+"', insecure: true}]}}\n")
	digest := s.pushImage("demo/app:v1", "one")
	s.pushImage("demo/app:v2", "two")
	s.pushImage("solo:latest", "three")
	s.pushImage("a/b/c__d:v1", "four")
	known := strings.NewReplacer("{OC}", s.addr, "{UPSTREAM}", upstream, "{DIGEST}", digest)
	if *ocBinary != "" {
		recordOC(t, s, known, strings.NewReplacer(s.addr, "{OC}", upstream, "{UPSTREAM}"))
	} else {
		replayOC(t, s, known)
	}
	for tag, want := range map[string]string{
		"demo/app:v1": digest, "demo/app:digest": digest, "other/copied:v1": digest, "a/b/c__d:two": digest, "demo/app:v2": "", "demo/app:alias": "",
		"demo/app:imported": crane(t, "digest", "--insecure", upstream+"/vendor/app:1.0"), "demo/whole:1.1": crane(t, "digest", "--insecure", upstream+"/vendor/app:1.1"),
	} {
		repository, name, _ := strings.Cut(tag, ":")
		got := s.request(http.MethodHead, "/v2/"+repository+"/manifests/"+name, "", http.Header{"Accept": {"*/*"}}).header.Get("Docker-Content-Digest")
		if got != want {
			t.Errorf("%s is %s, want %s", tag, got, want)
		}
	}
}

const ocRecording = "testdata/oc.json"

// recordOC runs oc against a proxy before s that records its requests.
func recordOC(t *testing.T, s *server, known, unknown *strings.Replacer) {
	t.Helper()
	var steps []ocStep
	var mu sync.Mutex
	target, err := url.Parse("http://" + s.addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/apis/image.openshift.io/v1/") || r.URL.Query().Get("watch") != "" {
			proxy.ServeHTTP(w, r) // discovery, and answers without end
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.Header.Del("Accept-Encoding")
		answer := httptest.NewRecorder()
		proxy.ServeHTTP(answer, r)
		response := unknown.Replace(answer.Body.String())
		if strings.HasPrefix(response, `{"kind":"Table"`) {
			response = "" // requests come from objects
		}
		mu.Lock()
		last := &steps[len(steps)-1]
		last.Exchanges = append(last.Exchanges, exchange{
			r.Method, r.URL.RequestURI(), r.Header.Get("Accept"), r.Header.Get("Content-Type"), orNone(unknown.Replace(string(body))),
			answer.Code, orNone(response),
		})
		mu.Unlock()
		for key, values := range answer.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	defer front.Close()
	config, err := clientcmd.LoadFromFile(s.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for name := range config.Clusters {
		config.Clusters[name] = &clientcmdapi.Cluster{Server: front.URL, InsecureSkipTLSVerify: true} // without TLS it sends no token
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	for _, c := range ocCommands {
		steps = append(steps, ocStep{Command: c.command})
		out, err := tryCommand(t, []string{"KUBECONFIG=" + kubeconfig, "HOME=" + t.TempDir()}, *ocBinary, strings.Fields(known.Replace(c.command))...)
		if (err != nil) != c.fails || !strings.Contains(out, known.Replace(c.prints)) {
			t.Errorf("oc %s: %v\n%s", known.Replace(c.command), err, out)
		}
	}
	lines := make([]string, len(steps))
	for i := range steps {
		line, err := json.Marshal(&steps[i])
		if err != nil {
			t.Fatal(err)
		}
		lines[i] = string(line)
	}
	writeFile(t, ocRecording, "[\n"+strings.Join(lines, ",\n")+"\n]\n")
}

// orNone returns a JSON value, nil for nothing.
func orNone(content string) json.RawMessage {
	if content == "" {
		return nil
	}
	return json.RawMessage(content)
}

// replayOC sends the recorded requests: each with the names, versions and times that the answers before it have got
// in place of those recorded.
func replayOC(t *testing.T, s *server, known *strings.Replacer) {
	t.Helper()
	content, err := os.ReadFile(ocRecording)
	if err != nil {
		t.Fatal(err)
	}
	var steps []ocStep
	if err := json.Unmarshal([]byte(known.Replace(string(content))), &steps); err != nil {
		t.Fatal(err)
	}
	if len(steps) != len(ocCommands) {
		t.Fatalf("%d commands are recorded, and %d wanted: run `make oc`", len(steps), len(ocCommands))
	}
	token := s.restConfig().BearerToken
	now := map[string]string{}
	for n, step := range steps {
		if want := known.Replace(ocCommands[n].command); step.Command != want {
			t.Fatalf("oc %s is recorded, and not oc %s: run `make oc`", step.Command, want)
		}
		if strings.HasPrefix(step.Command, "wait ") { // for answers that are not recorded
			s.kubectl(strings.Fields(step.Command)...)
		}
		for i := range step.Exchanges {
			e := &step.Exchanges[i]
			header := http.Header{"Authorization": {"Bearer " + token}, "Accept": {e.Accept}, "Content-Type": {e.Type}}
			got := s.request(e.Method, e.Path, string(substitute(t, e.Request, now)), header)
			if got.code != e.Status {
				t.Errorf("oc %s: %s %s: %d, was %d: %s", step.Command, e.Method, e.Path, got.code, e.Status, got.body)
				continue
			}
			var then, is any
			if json.Unmarshal(e.Response, &then) == nil && json.Unmarshal([]byte(got.body), &is) == nil {
				align(then, is, now)
			}
		}
	}
}

// substitute replaces the strings in a JSON value.
func substitute(t *testing.T, content json.RawMessage, now map[string]string) []byte {
	t.Helper()
	if len(content) == 0 {
		return nil
	}
	var value any
	if err := json.Unmarshal(content, &value); err != nil {
		t.Fatal(err)
	}
	changed, err := json.Marshal(mapped(value, now))
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func mapped(value any, now map[string]string) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			v[key] = mapped(v[key], now)
		}
	case []any:
		for i := range v {
			v[i] = mapped(v[i], now)
		}
	case string:
		if to, ok := now[v]; ok {
			return to
		}
	}
	return value
}

// align notes the versions and times of is that stand where then has others.
func align(then, is any, now map[string]string) {
	switch a := then.(type) {
	case map[string]any:
		b, _ := is.(map[string]any)
		for key := range a {
			from, ok := a[key].(string)
			to, both := b[key].(string)
			switch {
			case ok && both && fromServer[key]:
				now[from] = to
			case !ok:
				align(a[key], b[key], now)
			}
		}
	case []any:
		b, _ := is.([]any)
		for i := range min(len(a), len(b)) {
			align(a[i], b[i], now)
		}
	}
}

// fromServer are the fields that differ from one server to another.
var fromServer = map[string]bool{"uid": true, "resourceVersion": true, "creationTimestamp": true, "created": true, "lastTransitionTime": true, "time": true}
