package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKubectl runs the verbs of an unmodified kubectl.
func TestKubectl(t *testing.T) {
	s := startServer(t)
	digest := s.pushImage("team/app:v1", "kubectl")
	resource := "image/" + digest
	file := filepath.Join(t.TempDir(), "image.yaml")
	writeFile(t, file, "apiVersion: image.openshift.io/v1\nkind: Image\nmetadata:\n  name: "+digest+"\n  labels: {tier: gold}\n")
	byHand, changed := filepath.Join(t.TempDir(), "byhand.yaml"), filepath.Join(t.TempDir(), "changed.yaml")
	content := "apiVersion: image.openshift.io/v1\nkind: Image\nmetadata:\n  name: by-hand\n  labels: {a: one}\n" +
		"dockerImageReference: quay.io/a/b@sha256:" + strings.Repeat("ab", 32) + "\n" +
		"signatures:\n- metadata: {name: by-hand@s1}\n  type: atomic\n  content: c2lnbmVk\n"
	writeFile(t, byHand, content)
	writeFile(t, changed, strings.Replace(content, "a: one", "a: two", 1))

	steps := []struct {
		name string
		args []string
		want []string
	}{
		{"get", []string{"get", "images"}, []string{"NAME", "IMAGE REFERENCE", digest, s.addr + "/team/app@" + digest}},
		{"get wide", []string{"get", "images", "-o", "wide"}, []string{"SIZE", "LAYERS", "ARCHITECTURE", "SIGNATURES", "AGE"}},
		{"get one as JSON", []string{"get", resource, "-o", "json"}, []string{`"kind": "Image"`, `"openshift.io/image.managed": "true"`}},
		{"describe", []string{"describe", resource}, []string{"Docker Image Reference:", "tallyman.dev/tags: team/app:v1"}},
		{"explain", []string{"explain", "images.signatures.conditions"}, []string{"FIELD: conditions", "lastProbeTime", "Last time the condition was checked"}},
		{"explain from v2", []string{"explain", "images", "--output=plaintext-openapiv2"}, []string{"dockerImageLayers", "dockerImageConfig"}},
		{"api-resources", []string{"api-resources"}, []string{"images", "imagesignatures", "image.openshift.io/v1"}},
		{"label", []string{"label", resource, "color=blue"}, []string{"labeled"}},
		{"select by label", []string{"get", "images", "-l", "color=blue", "-o", "name"}, []string{digest}},
		{"annotate", []string{"annotate", resource, "owner=me"}, []string{"annotated"}},
		{"edit", []string{"edit", resource}, []string{"edited"}},
		{"apply --server-side", []string{"apply", "--server-side", "-f", file}, []string{"serverside-applied"}},
		{"managed fields", []string{"get", resource, "-o", "yaml", "--show-managed-fields"}, []string{"operation: Apply", "f:tier"}},
		{"apply creates", []string{"apply", "-f", byHand}, []string{"created"}},
		{"diff of nothing", []string{"diff", "-f", byHand}, nil},
		{"apply changes, with signatures there", []string{"apply", "-f", changed}, []string{"configured"}},
		{"apply has changed", []string{"get", "image", "by-hand", "-o", "yaml"}, []string{"a: two", "content: c2lnbmVk"}},
		{"patch, JSON", []string{"patch", "image", "by-hand", "--type=json", "-p", `[{"op":"add","path":"/metadata/labels/j","value":"1"}]`}, []string{"patched"}},
		{"patch, merge", []string{"patch", "image", "by-hand", "--type=merge", "-p", `{"metadata":{"labels":{"m":"1"}}}`}, []string{"patched"}},
		{"patch, strategic", []string{"patch", "image", "by-hand", "--type=strategic", "-p", `{"metadata":{"labels":{"s":"1"}}}`}, []string{"patched"}},
		{"patched three times", []string{"get", "image", "by-hand", "--show-labels"}, []string{"j=1", "m=1", "s=1"}},
		{"wait", []string{"wait", "--for=jsonpath={.metadata.labels.s}=1", "image/by-hand", "--timeout=10s"}, []string{"condition met"}},
		{"replace", []string{"replace", "-f", byHand}, []string{"replaced"}},
		{"delete and wait", []string{"delete", "image", "by-hand"}, []string{"deleted"}},
		{"version", []string{"version"}, []string{"Server Version: v1."}},
		{"ready", []string{"get", "--raw", "/readyz?verbose"}, []string{"[+]registry ok", "readyz check passed"}},
		{"the store is ready", []string{"get", "--raw", "/readyz/store?verbose"}, []string{"[+]store ok"}},
		{"live", []string{"get", "--raw", "/livez"}, []string{"ok"}},
	}
	for _, step := range steps {
		if step.name == "diff of nothing" {
			time.Sleep(1100 * time.Millisecond) // times have a resolution of one second
		}
		t.Run(step.name, func(t *testing.T) {
			out := command(t, append(s.kubectlEnv(), "KUBE_EDITOR=sed -i s/blue/green/"), "kubectl", step.args...)
			for _, want := range step.want {
				if !strings.Contains(out, want) {
					t.Errorf("kubectl %s printed no %q:\n%s", strings.Join(step.args, " "), want, out)
				}
			}
		})
	}
	image := s.image(digest)
	if image.Labels["color"] != "green" || image.Labels["tier"] != "gold" || image.Annotations["owner"] != "me" {
		t.Errorf("after all edits: labels %v, annotations %v", image.Labels, image.Annotations)
	}
	// A second push keeps the additions of users.
	s.pushImage("team/app:v2", "kubectl")
	again := s.image(digest)
	if again.Labels["color"] != "green" || again.Annotations["owner"] != "me" || again.Annotations["tallyman.dev/tags"] != "team/app:v1,team/app:v2" {
		t.Errorf("after a second push: labels %v, annotations %v", again.Labels, again.Annotations)
	}
}

// TestKubectlWatch: `kubectl get -w` prints a line for a push.
func TestKubectlWatch(t *testing.T) {
	debug := freeAddress(t)
	s := startServer(t, "REGISTRY_HTTP_DEBUG_ADDR="+debug, "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED=true")
	cmd := exec.CommandContext(t.Context(), tool(t, "kubectl"), "get", "images", "-w", "--output-watch-events")
	cmd.Env = append(cmd.Environ(), s.kubectlEnv()...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		buffer := make([]byte, 64<<10)
		for {
			n, err := out.Read(buffer)
			lines <- string(buffer[:n])
			if err != nil {
				return
			}
		}
	}()
	eventually(t, "the watch is open", func() error { return metricAtLeast(debug, "imageapi_watchers", 1) })
	digest := s.pushImage("team/app:v1", "watched")
	seen := ""
	for deadline := time.After(20 * time.Second); !strings.Contains(seen, digest); {
		select {
		case line := <-lines:
			seen += line
		case <-deadline:
			t.Fatalf("the watch printed no %s:\n%s", digest, seen)
		}
	}
	if !strings.Contains(seen, "ADDED") {
		t.Errorf("the watch printed\n%s", seen)
	}
}

// TestAnonymousKubectl: without a token everybody may read and nobody write.
func TestAnonymousKubectl(t *testing.T) {
	s := startServer(t)
	digest := s.pushImage("team/app:v1", "anonymous")
	out := command(t, []string{"HOME=" + s.dir}, "kubectl", "--server", "http://"+s.addr, "get", "images")
	if !strings.Contains(out, digest) {
		t.Errorf("kubectl without credentials printed\n%s", out)
	}
	out, err := tryCommand(t, []string{"HOME=" + s.dir}, "kubectl", "--server", "http://"+s.addr, "delete", "image", digest)
	if err == nil || !strings.Contains(out, "Forbidden") || !strings.Contains(out, "no rule allows it without credentials") {
		t.Errorf("delete without credentials: %v\n%s", err, out)
	}
	out, err = tryCommand(t, []string{"HOME=" + s.dir}, "kubectl", "--server", "https://"+s.addr, "--insecure-skip-tls-verify", "--token", "wrong", "get", "images")
	if err == nil || !strings.Contains(out, "Unauthorized") {
		t.Errorf("get with a wrong token: %v\n%s", err, out)
	}
}
