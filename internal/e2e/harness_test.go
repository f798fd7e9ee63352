package e2e

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	imageclient "github.com/openshift/client-go/image/clientset/versioned/typed/image/v1"
	"golang.org/x/crypto/bcrypt"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// These tests drive the built binary from the outside, with real clients. A
// client that is missing is a failure: .ci/install installs them.

var binary string

// raceDetector is set if the tests are built with -race; then the binary is too.
var raceDetector bool

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tallyman-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "tallyman")
	build := exec.Command("go", "build", "-o", binary, "../../cmd/tallyman")
	if raceDetector {
		build = exec.Command("go", "build", "-race", "-o", binary, "../../cmd/tallyman")
	}
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// server is one running tallyman.
type server struct {
	t          testing.TB
	dir        string // data directory
	addr       string
	kubeconfig string
	program    string // binary if empty
	args       []string
	env        []string
	cmd        *exec.Cmd
	log        *os.File
	exited     chan error
	scheme     string       // http if empty
	httpClient *http.Client // http.DefaultClient if nil
	// requests is the number of requests by try, sent the size of their bodies.
	requests, sent atomic.Int64
}

// startServer runs `tallyman serve` without a configuration on a free port.
func startServer(t *testing.T, env ...string) *server {
	t.Helper()
	dir, addr := t.TempDir(), freeAddress(t)
	s := &server{
		t: t, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"), args: []string{"serve", "--data-dir", dir},
		env: append([]string{"REGISTRY_HTTP_ADDR=" + addr}, env...),
	}
	s.start()
	return s
}

// startWithConfig runs `tallyman serve config.yml`. In config, ADDR and DIR stand
// for the address and the data directory.
func startWithConfig(t testing.TB, config string, env ...string) *server {
	t.Helper()
	dir, addr := t.TempDir(), freeAddress(t)
	path := filepath.Join(dir, "config.yml")
	writeFile(t, path, strings.NewReplacer("ADDR", addr, "DIR", dir).Replace(config))
	s := &server{
		t: t, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"),
		args: []string{"serve", "--data-dir", dir, path}, env: env,
	}
	s.start()
	return s
}

func (s *server) start() {
	s.t.Helper()
	var err error
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(cmp.Or(s.program, binary), s.args...)
	s.cmd.Env = append(os.Environ(), s.env...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited, cmd := make(chan error, 1), s.cmd
	s.exited = exited
	go func() { exited <- cmd.Wait() }()
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		if races := strings.Count(s.logText(), "WARNING: DATA RACE"); races > 0 {
			s.t.Errorf("the server has %d data races:\n%s", races, s.logText())
		}
		if s.t.Failed() {
			s.t.Logf("log of %s:\n%s", s.addr, tail(s.logText(), 15))
		}
	})
	eventually(s.t, "the server is ready", func() error {
		select {
		case err := <-exited:
			exited <- err
			s.t.Fatalf("the server has exited: %v\n%s", err, s.logText())
		default:
		}
		if err := s.status("/readyz", http.StatusOK); err != nil {
			return err
		}
		err := s.status("/readyz/store", http.StatusOK)
		if err != nil && strings.Contains(err.Error(), "404") { // a version before has its store in /readyz
			return nil
		}
		return err
	})
}

func (s *server) logText() string {
	content, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// stop ends the server as a service manager does, and wants it to end well.
func (s *server) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			s.t.Fatalf("after SIGTERM: %v\n%s", err, tail(s.logText(), 20))
		}
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the server is still there 30 s after SIGTERM\n%s", tail(s.logText(), 20))
	}
}

// kill ends the server at once.
func (s *server) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	<-s.exited
}

func (s *server) url(path string) string { return cmp.Or(s.scheme, "http") + "://" + s.addr + path }

// status wants a GET of path to answer with code.
func (s *server) status(path string, code int) error {
	response, err := cmp.Or(s.httpClient, http.DefaultClient).Get(s.url(path))
	if err != nil {
		return err
	}
	body, _ := io.ReadAll(response.Body)
	if err := response.Body.Close(); err != nil {
		return err
	}
	if response.StatusCode != code {
		return fmt.Errorf("GET %s: %s, want %d: %s", path, response.Status, code, body)
	}
	return nil
}

// restConfig is the administrator's.
func (s *server) restConfig() *rest.Config {
	s.t.Helper()
	c, err := clientcmd.BuildConfigFromFlags("", s.kubeconfig)
	if err != nil {
		s.t.Fatal(err)
	}
	c.QPS = -1
	return c
}

// images is a typed client with the administrator's token.
func (s *server) images() imageclient.ImageInterface {
	return s.client().Images()
}

func (s *server) client() imageclient.ImageV1Interface {
	s.t.Helper()
	c, err := imageclient.NewForConfig(s.restConfig())
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// image waits for the Image called name.
func (s *server) image(name string) *imagev1.Image {
	s.t.Helper()
	image, err := s.images().Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return image
}

// answer is one HTTP answer.
type answer struct {
	code   int
	header http.Header
	body   string
}

// request sends a request. target is a whole URL, or a path, which is sent as it
// is: neither cleaned nor escaped again.
func (s *server) request(method, target, body string, header http.Header) answer {
	s.t.Helper()
	got, err := s.try(method, target, body, header)
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

// try is request for requests that may fail.
func (s *server) try(method, target, body string, header http.Header) (answer, error) {
	s.requests.Add(1)
	s.sent.Add(int64(len(body)))
	whole := target
	if strings.HasPrefix(target, "/") {
		whole = s.url("")
	}
	request, err := http.NewRequestWithContext(s.t.Context(), method, whole, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if strings.HasPrefix(target, "/") {
		request.URL.Opaque = "//" + s.addr + target
	}
	if header != nil {
		request.Header = header
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(content)}, err
}

// manifest returns the bytes that the registry holds.
func (s *server) manifest(repository, reference string) string {
	s.t.Helper()
	accept := http.Header{}
	for _, kind := range []string{"docker.distribution.manifest.v2", "docker.distribution.manifest.list.v2", "oci.image.manifest.v1", "oci.image.index.v1"} {
		accept.Add("Accept", "application/vnd."+kind+"+json")
	}
	got := s.request(http.MethodGet, "/v2/"+repository+"/manifests/"+reference, "", accept)
	if got.code != http.StatusOK {
		s.t.Fatalf("manifest %s of %s: %d %s", reference, repository, got.code, got.body)
	}
	return got.body
}

// putManifest pushes a manifest.
func (s *server) putManifest(repository, tag, mediaType, manifest string) answer {
	s.t.Helper()
	return s.request(http.MethodPut, "/v2/"+repository+"/manifests/"+tag, manifest, http.Header{"Content-Type": {mediaType}})
}

// pushBlob uploads content to repository in one piece and returns its digest.
func (s *server) pushBlob(repository string, content []byte) string {
	s.t.Helper()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(content))
	location := s.request(http.MethodPost, "/v2/"+repository+"/blobs/uploads/", "", nil).header.Get("Location")
	if got := s.request(http.MethodPut, location+"&digest="+digest, string(content), nil); got.code != http.StatusCreated {
		s.t.Fatalf("upload of %d bytes: %d %s", len(content), got.code, got.body)
	}
	return digest
}

// tool returns the path of a client.
func tool(t testing.TB, name string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if path := filepath.Join(root, "bin", name); isFile(path) {
		return path
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing: run `make tools`", name)
	}
	return path
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// command runs a client and returns its output.
func command(t testing.TB, env []string, name string, args ...string) string {
	t.Helper()
	out, err := tryCommand(t, env, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func tryCommand(t testing.TB, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, tool(t, name), args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s *server) kubectl(args ...string) string {
	s.t.Helper()
	return command(s.t, s.kubectlEnv(), "kubectl", args...)
}

func (s *server) kubectlEnv() []string {
	return []string{"KUBECONFIG=" + s.kubeconfig, "HOME=" + s.t.TempDir()}
}

// crane runs crane and returns the last line that it printed, without the
// time-stamped lines of its log.
func crane(t testing.TB, args ...string) string {
	t.Helper()
	var kept []string
	for line := range strings.Lines(command(t, nil, "crane", args...)) {
		if !strings.HasPrefix(line, "20") { // a date
			kept = append(kept, strings.TrimSpace(line))
		}
	}
	if len(kept) == 0 {
		return ""
	}
	return kept[len(kept)-1]
}

// pushImage pushes an image with a layer that holds content, and returns its
// digest.
func (s *server) pushImage(ref, content string) string {
	s.t.Helper()
	pushed := crane(s.t, "append", "-f", layerTar(s.t, content), "-t", s.addr+"/"+ref)
	_, digest, ok := strings.Cut(pushed, "@")
	if !ok {
		s.t.Fatalf("crane printed %q", pushed)
	}
	return digest
}

// layerTar makes a layer with one file.
func layerTar(t testing.TB, content string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "layer.tar")
	writeFile(t, path, b.String())
	return path
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// htpasswdFile writes a file with users of the registry: names, each followed by its password.
func htpasswdFile(t testing.TB, credentials ...string) string {
	t.Helper()
	content := ""
	for user := range slices.Chunk(credentials, 2) {
		hash, err := bcrypt.GenerateFromPassword([]byte(user[1]), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		content += user[0] + ":" + string(hash) + "\n"
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	writeFile(t, path, content)
	return path
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// patience is how long eventually waits: long enough for a client that backs off and a
// machine that is busy with other work.
const patience = 4 * time.Minute

// eventually tries check until it returns nil.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not in %s: %v", what, patience, err)
}

func tail(text string, lines int) string {
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// imageclientFor is a typed client of images by config.
func imageclientFor(t testing.TB, config *rest.Config) imageclient.ImageInterface {
	t.Helper()
	c, err := imageclient.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c.Images()
}
