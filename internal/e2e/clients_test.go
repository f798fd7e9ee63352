package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// TestPushClients pushes with every client that users have: each time an Image
// appears in a watch that was open before, and in `kubectl get images -o wide`.
func TestPushClients(t *testing.T) {
	s := startServer(t)
	events, err := s.images().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	seen := newCollector(events)
	work := t.TempDir()
	insecure := filepath.Join(work, "registries.conf")
	writeFile(t, insecure, fmt.Sprintf("[[registry]]\nlocation = %q\ninsecure = true\n", s.addr))
	ownStorage := filepath.Join(work, "storage.conf")
	writeFile(t, ownStorage, fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", work+"/graph", work+"/run"))
	containers := []string{
		"CONTAINERS_REGISTRIES_CONF=" + insecure, "CONTAINERS_STORAGE_CONF=" + ownStorage, "XDG_RUNTIME_DIR=" + work, "HOME=" + work, "BUILDAH_ISOLATION=chroot",
	}
	docker := startDocker(t)
	rootfs := func(name string) string { return layerTar(t, name) }
	context := func(name string) string {
		dir := filepath.Join(t.TempDir(), "context")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "file"), name)
		writeFile(t, filepath.Join(dir, "Dockerfile"), "FROM scratch\nCOPY file /file\nENV CLIENT="+name+"\nCMD [\"/file\"]\n")
		return dir
	}
	ref := func(name string) string { return s.addr + "/clients/" + name + ":v1" }
	tests := []struct {
		name     string
		push     func(t *testing.T)
		wantKind string // in the wide table
		wantType string // dockerImageManifestMediaType
	}{
		{"docker", func(t *testing.T) {
			command(t, append(docker, "DOCKER_BUILDKIT=0"), "docker", "build", "-t", ref("docker"), context("docker"))
			command(t, docker, "docker", "push", ref("docker"))
		}, "linux/amd64", "application/vnd.docker.distribution.manifest.v2+json"},
		{"crane", func(t *testing.T) {
			command(t, nil, "crane", "append", "--oci-empty-base", "-f", rootfs("crane"), "-t", ref("crane"))
		}, "", "application/vnd.oci.image.manifest.v1+json"},
		{"podman", func(t *testing.T) {
			command(t, containers, "podman", "build", "-q", "-t", ref("podman"), context("podman"))
			command(t, containers, "podman", "push", "-q", ref("podman"))
		}, "linux/amd64", "application/vnd.oci.image.manifest.v1+json"},
		{"buildah", func(t *testing.T) {
			command(t, containers, "buildah", "bud", "-q", "-t", ref("buildah"), context("buildah"))
			command(t, containers, "buildah", "push", "-q", "--format", "v2s2", ref("buildah"))
		}, "linux/amd64", "application/vnd.docker.distribution.manifest.v2+json"},
		{"skopeo", func(t *testing.T) {
			command(t, containers, "skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false",
				"docker://"+ref("podman"), "docker://"+ref("skopeo"))
		}, "linux/amd64", "application/vnd.oci.image.manifest.v1+json"},
		{"multi-arch", func(t *testing.T) {
			command(t, containers, "buildah", "manifest", "create", "multi")
			command(t, containers, "buildah", "manifest", "add", "--tls-verify=false", "multi", "docker://"+ref("podman"))
			command(t, containers, "buildah", "manifest", "add", "--tls-verify=false", "--os", "linux", "--arch", "arm64", "multi", "docker://"+ref("buildah"))
			command(t, containers, "buildah", "manifest", "push", "--tls-verify=false", "--all", "multi", "docker://"+ref("multi-arch"))
		}, "linux/amd64,linux/arm64", "application/vnd.oci.image.index.v1+json"},
		{"helm", func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "config.json"), `{"name":"web","version":"1.2.3","apiVersion":"v2"}`)
			writeFile(t, filepath.Join(dir, "web-1.2.3.tgz"), "chart")
			oras(t, dir, "push", "--plain-http", ref("helm"), "--config", "config.json:application/vnd.cncf.helm.config.v1+json",
				"web-1.2.3.tgz:application/vnd.cncf.helm.chart.content.v1.tar+gzip")
		}, "application/vnd.cncf.helm.config.v1+json", "application/vnd.oci.image.manifest.v1+json"},
		{"artifact", func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "sbom.json"), `{}`)
			oras(t, dir, "push", "--plain-http", ref("artifact"), "--artifact-type", "application/spdx+json", "sbom.json:application/spdx+json")
		}, "application/spdx+json", "application/vnd.oci.image.manifest.v1+json"},
		{"attached", func(t *testing.T) {
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "note"), "hello")
			out := oras(t, dir, "attach", "--plain-http", ref("docker"), "--artifact-type", "example/note", "note:text/plain")
			digest := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(lastLine(out, "Digest:"))
			crane(t, "tag", s.addr+"/clients/docker@"+digest, "attached")
			crane(t, "copy", s.addr+"/clients/docker@"+digest, ref("attached"))
		}, "example/note", "application/vnd.oci.image.manifest.v1+json"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.push(t)
			digest := crane(t, "digest", ref(test.name))
			image := seen.wait(t, digest)
			repository := "clients/" + test.name
			if !strings.Contains(image.Annotations["tallyman.dev/repositories"], repository) {
				t.Errorf("the Image says it lives in %q", image.Annotations["tallyman.dev/repositories"])
			}
			if image.DockerImageManifestMediaType != test.wantType {
				t.Errorf("media type %s, want %s", image.DockerImageManifestMediaType, test.wantType)
			}
			row := s.kubectl("get", "images", "-o", "wide", "--no-headers", "--field-selector", "tag="+repository+":v1")
			if !strings.HasPrefix(row, digest) || !strings.Contains(row, test.wantKind) || strings.Count(row, "\n") != 1 {
				t.Errorf("kubectl get images -o wide --field-selector tag=%s:v1:\n%s", repository, row)
			}
			if raw := s.manifest(repository, digest); raw != image.DockerImageManifest {
				t.Errorf("dockerImageManifest is\n%s\nthe registry has\n%s", image.DockerImageManifest, raw)
			}
			line := regexp.MustCompile(`msg="image recorded".*derive=.*digest="` + digest + `" http.request.id=.* kind=.* repository=` + repository + ` tag=v1 total=`)
			if !line.MatchString(s.logText()) {
				t.Errorf("no log line matches %s", line)
			}
		})
	}
}

// oras runs oras in dir, since it takes file names as titles.
func oras(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), tool(t, "oras"), args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("oras %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// lastLine returns the last line of text that contains part.
func lastLine(text, part string) string {
	found := ""
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = line
		}
	}
	return found
}

// collector keeps the newest state of each Image that a watch shows.
type collector struct {
	images chan map[string]*imagev1.Image
}

func newCollector(w watch.Interface) *collector {
	c := &collector{images: make(chan map[string]*imagev1.Image, 1)}
	c.images <- map[string]*imagev1.Image{}
	go func() {
		for e := range w.ResultChan() {
			if image, ok := e.Object.(*imagev1.Image); ok {
				images := <-c.images
				images[image.Name] = image
				c.images <- images
			}
		}
	}()
	return c
}

func (c *collector) wait(t *testing.T, name string) *imagev1.Image {
	t.Helper()
	var found *imagev1.Image
	eventually(t, "the watch shows "+name, func() error {
		images := <-c.images
		defer func() { c.images <- images }()
		if found = images[name]; found == nil || found.Annotations["tallyman.dev/tags"] == "" {
			return fmt.Errorf("%d other images", len(images))
		}
		return nil
	})
	return found
}

// startDocker runs a Docker engine of the test's own and returns the environment
// for its client.
func startDocker(t *testing.T) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dockerd-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	host := "unix://" + dir + "/docker.sock"
	cmd := exec.Command(tool(t, "dockerd"), "--data-root", dir+"/data", "--exec-root", dir+"/run", "-H", host, "-p", dir+"/docker.pid",
		"--iptables=false", "--ip6tables=false", "--ip-masq=false", "--bridge=none", "--storage-driver=vfs")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	env := []string{"DOCKER_HOST=" + host, "DOCKER_CONFIG=" + dir + "/config"}
	eventually(t, "the Docker engine answers (it needs CAP_SYS_ADMIN)", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		probe := exec.CommandContext(ctx, tool(t, "docker"), "version")
		probe.Env = append(os.Environ(), env...)
		if out, err := probe.CombinedOutput(); err != nil {
			content, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%w\n%s\n%s", err, out, tail(string(content), 5))
		}
		return nil
	})
	return env
}
