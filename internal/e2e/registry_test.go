package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func (s *server) deleteManifest(repository, reference string) {
	s.t.Helper()
	if got := s.request(http.MethodDelete, "/v2/"+repository+"/manifests/"+reference, "", nil); got.code != http.StatusAccepted {
		s.t.Fatalf("DELETE %s of %s: %d %s", reference, repository, got.code, got.body)
	}
}

// lives wants the Image to say that it lives in these repositories and tags.
func (s *server) lives(digest, repositories, tags string) error {
	image, err := s.images().Get(s.t.Context(), digest, metav1.GetOptions{})
	if err != nil {
		return err
	}
	a := image.Annotations
	if a["tallyman.dev/repositories"] != repositories || a["tallyman.dev/tags"] != tags {
		return fmt.Errorf("it lives in %q with tags %q, want %q and %q", a["tallyman.dev/repositories"], a["tallyman.dev/tags"], repositories, tags)
	}
	return nil
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestPlacement: an Image knows where it lives while tags move, manifests are
// pushed to several repositories, and are deleted.
func TestPlacement(t *testing.T) {
	s := startServer(t)
	one := s.pushImage("team/app:v1", "one")
	must(t, "one push", s.lives(one, "team/app", "team/app:v1"))
	crane(t, "tag", s.addr+"/team/app:v1", "latest")
	must(t, "a second tag", s.lives(one, "team/app", "team/app:latest,team/app:v1"))
	crane(t, "copy", s.addr+"/team/app:v1", s.addr+"/other/app:x") // mounts the blobs
	must(t, "a second repository", s.lives(one, "other/app,team/app", "other/app:x,team/app:latest,team/app:v1"))
	if ref := s.image(one).DockerImageReference; ref != s.addr+"/team/app@"+one {
		t.Errorf("dockerImageReference is %s", ref)
	}
	two := s.pushImage("team/app:latest", "two")
	must(t, "the tag moved away", s.lives(one, "other/app,team/app", "other/app:x,team/app:v1"))
	must(t, "the tag moved here", s.lives(two, "team/app", "team/app:latest"))
	before := s.image(two).ResourceVersion
	s.pushImage("team/app:latest", "two")
	if after := s.image(two).ResourceVersion; after != before {
		t.Errorf("a push of what was there changed the Image from %s to %s", before, after)
	}
	s.deleteManifest("team/app", "v1") // a tag
	must(t, "a tag was deleted", s.lives(one, "other/app,team/app", "other/app:x"))
	s.deleteManifest("team/app", one)
	must(t, "a repository's manifest was deleted", s.lives(one, "other/app", "other/app:x"))
	if ref := s.image(one).DockerImageReference; ref != s.addr+"/other/app@"+one {
		t.Errorf("dockerImageReference points to a repository that is gone: %s", ref)
	}
	selected, err := s.images().List(t.Context(), metav1.ListOptions{FieldSelector: "repository=team/app"})
	if err != nil || len(selected.Items) != 1 || selected.Items[0].Name != two {
		t.Errorf("repository=team/app selects %v, %v", selected, err)
	}
	if selected, err = s.images().List(t.Context(), metav1.ListOptions{FieldSelector: "repository!=team/app,tag=x"}); err != nil || len(selected.Items) != 1 {
		t.Errorf("repository!=team/app,tag=x selects %v, %v", selected, err)
	}
	s.deleteManifest("other/app", one)
	if _, err := s.images().Get(t.Context(), one, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after the last deletion the Image is %v", err)
	}
	// Pushed by digest, without a tag.
	crane(t, "copy", s.addr+"/team/app@"+two, s.addr+"/bare/app")
	crane(t, "push", ociLayout(t, s, "team/app:latest"), s.addr+"/bare/app@"+two)
	image := s.image(two)
	if !strings.Contains(image.Annotations["tallyman.dev/repositories"], "bare/app") {
		t.Errorf("pushed by digest, the Image lives in %v", image.Annotations)
	}
}

// ociLayout pulls an image into a tar file.
func ociLayout(t *testing.T, s *server, ref string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "layout")
	crane(t, "pull", "--format=oci", s.addr+"/"+ref, path)
	return path
}

// TestUsersImagesStay: deletion of a manifest takes no Image along that a user
// made, or that has a finalizer.
func TestUsersImagesStay(t *testing.T) {
	s := startServer(t)
	digest := s.pushImage("team/app:v1", "mine")
	s.deleteManifest("team/app", digest)
	mine := newImage(digest)
	mine.Labels = map[string]string{"mine": "yes"}
	if _, err := s.images().Create(t.Context(), mine, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.pushImage("team/app:v1", "mine")
	image := s.image(digest)
	if image.Labels["mine"] != "yes" || image.DockerImageReference != reference || len(image.DockerImageLayers) != 1 {
		t.Errorf("after a push the user's Image is %+v", image)
	}
	s.deleteManifest("team/app", digest)
	must(t, "a user's Image after the deletion", s.lives(digest, "", ""))

	held := s.pushImage("team/app:held", "held")
	s.kubectl("patch", "image", held, "--type=merge", "-p", `{"metadata":{"finalizers":["example.com/hold"]}}`)
	s.deleteManifest("team/app", held)
	if image := s.image(held); image.DeletionTimestamp == nil {
		t.Errorf("an Image with a finalizer, after the deletion: %+v", image.ObjectMeta)
	}
	s.kubectl("patch", "image", held, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	if _, err := s.images().Get(t.Context(), held, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("without its finalizer the Image is %v", err)
	}
}

// TestServerKilled: nothing that was acknowledged is lost by kill -9.
func TestServerKilled(t *testing.T) {
	s := startServer(t)
	var digests []string
	for round := range 5 {
		digest := s.pushImage(fmt.Sprintf("team/app:r%d", round), fmt.Sprint("round ", round))
		s.kubectl("label", "image", digest, fmt.Sprintf("round=%d", round))
		s.kill()
		s.start()
		digests = append(digests, digest)
	}
	for round, digest := range digests {
		must(t, "after kill -9", s.lives(digest, "team/app", fmt.Sprintf("team/app:r%d", round)))
		if got := s.image(digest).Labels["round"]; got != fmt.Sprint(round) {
			t.Errorf("the label of round %d is %q", round, got)
		}
	}
}

// TestBackfill: content from before tallyman gets its Images at start-up, and the content of a
// lost store is derived again.
func TestBackfill(t *testing.T) {
	s := startServer(t)
	digest := s.pushImage("team/app:v1", "before")
	crane(t, "copy", s.addr+"/team/app:v1", s.addr+"/deep/er/app:x")
	want := s.image(digest)
	s.stop()
	if err := os.Remove(filepath.Join(s.dir, "images.db")); err != nil {
		t.Fatal(err)
	}
	s.start()
	eventually(t, "the Image is derived again", func() error { return s.lives(digest, "deep/er/app,team/app", "deep/er/app:x,team/app:v1") })
	got := s.image(digest)
	references := []string{s.addr + "/deep/er/app@" + digest, s.addr + "/team/app@" + digest} // either is looked at first
	if string(got.DockerImageMetadata.Raw) != string(want.DockerImageMetadata.Raw) || got.DockerImageManifest != want.DockerImageManifest ||
		!slices.Contains(references, got.DockerImageReference) {
		t.Errorf("derived again it is\n%+v\nwant\n%+v", got, want)
	}
}

// fullDisk is a file system of 1 MiB for the store alone, which fill fills.
type fullDisk struct {
	t   *testing.T
	dir string
}

func newFullDisk(t *testing.T) *fullDisk {
	t.Helper()
	d := &fullDisk{t: t, dir: t.TempDir()}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", d.dir).CombinedOutput(); err != nil {
		t.Fatalf("mount a small file system (this needs CAP_SYS_ADMIN): %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(d.dir, syscall.MNT_DETACH) })
	return d
}

func (d *fullDisk) fill() {
	d.t.Helper()
	f, err := os.Create(filepath.Join(d.dir, "filler"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatal(err)
	}
}

func (d *fullDisk) free() {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, "filler")); err != nil {
		d.t.Fatal(err)
	}
}

// TestStoreFailureDeferred: while the store cannot write, pushes succeed, leave
// a marker, and are recorded when it can again, also by the next process.
func TestStoreFailureDeferred(t *testing.T) {
	disk := newFullDisk(t)
	s := startServer(t, "REGISTRY_IMAGEAPI_STORE_PATH="+disk.dir+"/images.db")
	there := s.pushImage("team/app:v1", "there before")
	disk.fill()
	// A full store has free pages, which the first pushes use up.
	digest := s.pushImage("team/app:v1", "while full")
	for n := 0; n < 50; n++ {
		if _, err := s.images().Get(t.Context(), digest, metav1.GetOptions{}); apierrors.IsNotFound(err) {
			break
		}
		digest = s.pushImage("team/app:v1", fmt.Sprint("while full ", n))
	}
	markers, err := os.ReadDir(filepath.Join(s.dir, "registry/tallyman/pending"))
	if err != nil || len(markers) == 0 {
		t.Errorf("pending markers: %v, %v", markers, err)
	}
	if _, err := s.images().Get(t.Context(), digest, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("with a full disk, the Image is %v", err)
	}
	if err := s.status("/apis/image.openshift.io/v1/images/"+there, http.StatusOK); err != nil {
		t.Errorf("reads with a full disk: %v", err)
	}
	_, err = s.images().Create(t.Context(), newImage("x"), metav1.CreateOptions{})
	for n := 0; n < 50 && err == nil; n++ {
		_, err = s.images().Create(t.Context(), newImage(fmt.Sprint("x", n)), metav1.CreateOptions{})
	}
	if !apierrors.IsServiceUnavailable(err) {
		t.Errorf("an API write with a full disk: %v", err)
	}
	disk.free()
	eventually(t, "the push is recorded", func() error { return s.lives(digest, "team/app", "team/app:v1") })
	must(t, "the tag left the other Image", s.lives(there, "team/app", ""))

	disk.fill()
	late := s.pushImage("team/app:late", "and restarted")
	s.stop()
	disk.free()
	s.start()
	eventually(t, "the next process records the push", func() error { return s.lives(late, "team/app", "team/app:late") })
	eventually(t, "the markers are gone", func() error {
		if left, _ := os.ReadDir(filepath.Join(s.dir, "registry/tallyman/pending")); len(left) > 0 {
			return fmt.Errorf("%d are left", len(left))
		}
		return nil
	})
}

// TestStoreFailureRejected: with onstorefailure: reject a push fails with 503
// that says why, and a retry succeeds.
func TestStoreFailureRejected(t *testing.T) {
	disk := newFullDisk(t)
	s := startServer(t, "REGISTRY_IMAGEAPI_STORE_PATH="+disk.dir+"/images.db", "REGISTRY_IMAGEAPI_ONSTOREFAILURE=reject")
	layer := layerTar(t, "rejected")
	crane(t, "append", "-f", layer, "-t", s.addr+"/warm/up:v1")
	disk.fill()
	out, err := tryCommand(t, nil, "crane", "append", "-f", layer, "-t", s.addr+"/team/app:v1")
	if err == nil || !strings.Contains(out, "UNAVAILABLE: the image store is not available, so the change could not be recorded; try again") {
		t.Errorf("the push with a full disk: %v\n%s", err, out)
	}
	// A tag that moves, which distribution alone would answer with 500.
	for _, tag := range []string{"v1", "v2"} {
		got := s.putManifest("warm/up", tag, "application/vnd.docker.distribution.manifest.v2+json", s.manifest("warm/up", "v1"))
		rejected := got.code == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "" && strings.Contains(got.body, `"code":"UNAVAILABLE"`)
		if unchanged := tag == "v1" && got.code == http.StatusCreated; !rejected && !unchanged {
			t.Errorf("PUT of tag %s: %+v", tag, got)
		}
	}
	disk.free()
	digest := s.pushImage("team/app:v1", "rejected")
	must(t, "the retry", s.lives(digest, "team/app,warm/up", "team/app:v1,warm/up:v1"))
	crane(t, "tag", s.addr+"/warm/up:v1", "v2")
	must(t, "the tag", s.lives(digest, "team/app,warm/up", "team/app:v1,warm/up:v1,warm/up:v2"))
}

const proxyConfig = `
version: 0.1
storage: {filesystem: {rootdirectory: DIR/cache}}
http: {addr: ADDR}
proxy: {remoteurl: http://UPSTREAM}
imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}
`

// TestPullThrough: content that arrives through a pull-through cache is recorded, whole once
// its config has arrived.
func TestPullThrough(t *testing.T) {
	upstream := startServer(t)
	digest := upstream.pushImage("team/app:v1", "from afar")
	s := startWithConfig(t, strings.ReplaceAll(proxyConfig, "UPSTREAM", upstream.addr))
	crane(t, "manifest", s.addr+"/team/app:v1")
	eventually(t, "the pulled manifest is recorded", func() error { return s.lives(digest, "team/app", "team/app:v1") })
	crane(t, "pull", s.addr+"/team/app:v1", filepath.Join(t.TempDir(), "image.tar"))
	eventually(t, "the config is there", func() error {
		if image := s.image(digest); image.DockerImageConfig == "" {
			return errors.New("the Image has no config")
		}
		return nil
	})
	if image := s.image(digest); image.DockerImageReference != s.addr+"/team/app@"+digest {
		t.Errorf("dockerImageReference is %s", image.DockerImageReference)
	}
}

const plainConfig = `
version: 0.1
log: {level: info, fields: {service: registry}}
storage:
  filesystem: {rootdirectory: DIR/registry}
  delete: {enabled: true}
http: {addr: ADDR}
`

// TestGarbageCollect: manifests that garbage-collect removes leave the Images,
// with the server stopped and with it running.
func TestGarbageCollect(t *testing.T) {
	t.Parallel()
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	config := filepath.Join(s.dir, "config.yml")
	collect := func(args ...string) string {
		out, err := exec.Command(binary, append([]string{"garbage-collect", config, "--data-dir", s.dir}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("garbage-collect %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	gone := func(digest string) func() error {
		return func() error {
			if _, err := s.images().Get(t.Context(), digest, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				return fmt.Errorf("the Image is still there: %w", err)
			}
			return nil
		}
	}
	first := s.pushImage("team/app:v1", "first")
	second := s.pushImage("team/app:v1", "second") // first has no tag now
	if out := collect("-m", "--dry-run"); !strings.Contains(out, "manifest eligible for deletion: {team/app "+first) {
		t.Errorf("a dry run printed\n%s", out)
	}
	must(t, "after a dry run", s.lives(first, "team/app", ""))
	if out := collect("--delete-untagged"); !strings.Contains(out, "server that is running") {
		t.Errorf("beside the server it printed\n%s", out)
	}
	eventually(t, "the running server has taken it off", gone(first))

	third := s.pushImage("team/app:v1", "third")
	s.stop()
	collect("-m", "-q")
	s.start()
	must(t, "collected while the server was stopped", gone(second)())
	must(t, "what has a tag stays", s.lives(third, "team/app", "team/app:v1"))
}

// TestShutdown: SIGTERM ends open watches well and lets a push in flight finish.
func TestShutdown(t *testing.T) {
	s := startServer(t)
	w, err := s.images().Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range w.ResultChan() {
			if _, ok := e.Object.(*imagev1.Image); !ok {
				t.Errorf("the watch got %v", e)
			}
		}
	})
	// A manifest of which the client has sent one half.
	blob := s.pushBlob("team/app", []byte("{}"))
	manifest := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]}`, blob)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(manifest)))
	body, half := io.Pipe()
	reading := make(chan struct{}) // closed when the registry has begun to read the body
	ctx := httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
	wg.Go(func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url("/v2/team/app/manifests/v1"), body)
		if err != nil {
			t.Error(err)
			return
		}
		request.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		request.Header.Set("Expect", "100-continue")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Errorf("the push in flight: %v", err)
			return
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusCreated {
			t.Errorf("the push in flight: %s, %v", response.Status, err)
		}
	})
	<-reading
	if _, err := io.WriteString(half, manifest[:20]); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(time.Second, func() {
		_, _ = io.WriteString(half, manifest[20:]) // the push reports it if this fails
		_ = half.Close()
	})
	start := time.Now()
	s.stop()
	wg.Wait()
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("with an open watch, the shutdown took %s", took)
	}
	s.start()
	must(t, "the push that was in flight", s.lives(digest, "team/app", "team/app:v1"))
}

// TestSecondServer: the embedded store is one process's, and the second is told.
func TestSecondServer(t *testing.T) {
	s := startServer(t)
	cmd := exec.Command(binary, "serve", "--data-dir", s.dir)
	cmd.Env = append(os.Environ(), "REGISTRY_HTTP_ADDR="+freeAddress(t))
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "in use by another process") {
		t.Errorf("a second server: %v\n%s", err, out)
	}
}

// TestHtpasswd: with htpasswd, the registry's users may read, and others not
// even that.
func TestHtpasswd(t *testing.T) {
	dir := t.TempDir()
	// bcrypt of "secret" for user "clerk".
	writeFile(t, filepath.Join(dir, "htpasswd"), "clerk:$2a$04$.7Kc4kEy6Ao.H5qFmK1qwe5UwY81X0vRhLp/5ytaoAOmeKMbsGGVG\n")
	config := plainConfig + "auth: {htpasswd: {realm: test, path: " + dir + "/htpasswd}}\n"
	s := startWithConfig(t, config)
	get := func(user, password string) int {
		header := http.Header{}
		if user != "" {
			header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
		}
		return s.request(http.MethodGet, api+"/images", "", header).code
	}
	for _, test := range []struct {
		user, password string
		want           int
	}{{"", "", 401}, {"clerk", "wrong", 401}, {"clerk", "secret", 200}} {
		if got := get(test.user, test.password); got != test.want {
			t.Errorf("%q with %q: %d, want %d", test.user, test.password, got, test.want)
		}
	}
}
