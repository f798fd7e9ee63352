package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"tallyman/storage/redis/redistest"
)

// movable is a registry whose store can be either kind.
const movable = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: DIR/registry}, delete: {enabled: true}}
http: {addr: ADDR}
redis: {addrs: [REDIS]}
imageapi:
  store: {type: bolt}
  auth: {kubeconfigfile: DIR/kubeconfig}
`

// onStore makes the server use the other kind of store from its next start.
func (s *server) onStore(kind string) {
	s.t.Helper()
	s.env = []string{"REGISTRY_IMAGEAPI_STORE_TYPE=" + kind}
}

func (s *server) configFile() string { return filepath.Join(s.dir, "config.yml") }

// metadata runs a metadata command on the server's configuration.
func (s *server) metadata(args ...string) string {
	s.t.Helper()
	out, err := s.tryMetadata(args...)
	if err != nil {
		s.t.Fatalf("metadata %v: %v\n%s", args, err, out)
	}
	return out
}

func (s *server) tryMetadata(args ...string) (string, error) {
	return tryCommand(s.t, s.env, binary, append(append([]string{"store"}, args...), s.configFile())...)
}

// newest returns the newest resourceVersion.
func (s *server) newest() int64 {
	s.t.Helper()
	list, err := s.images().List(s.t.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		s.t.Fatal(err)
	}
	revision, err := strconv.ParseInt(list.ResourceVersion, 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return revision
}

// copied is said when everything was copied that there was.
var copied = regexp.MustCompile(`copied (\d+) of (\d+) objects`)

// compared returns the number of objects that were compared, 0 if some are missing.
func compared(output string) (n int) {
	if found := regexp.MustCompile(`(\d+) compared, 0 missing`).FindStringSubmatch(output); found != nil {
		n, _ = strconv.Atoi(found[1]) // digits
	}
	return n
}

// TestMigrate moves a store from bolt to Redis while images are pushed, and back while the
// registry runs on Redis. Nothing is missing, additions of clients and identities stay, and
// resourceVersions never go back.
func TestMigrate(t *testing.T) {
	redis := redistest.Start(t, "redis-server", redistest.Durable...)
	s := startWithConfig(t, strings.ReplaceAll(movable, "REDIS", redis.Addr))
	var all []string
	for i := range 20 {
		all = append(all, pushSmallImage(s, fmt.Sprint("app", i), fmt.Sprint("image ", i)))
	}
	patch := `{"metadata":{"labels":{"team":"quay"},"annotations":{"note":"kept"}}}`
	marked, err := s.images().Patch(t.Context(), all[0], types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if out := s.metadata("stats"); !strings.Contains(out, "images           20") {
		t.Errorf("stats of the store in use:\n%s", out)
	}

	follower := exec.CommandContext(t.Context(), binary, "store", "migrate", "--from", "bolt", "--to", "redis", "--follow", s.configFile())
	var followed bytes.Buffer
	follower.Stdout, follower.Stderr = &followed, &followed
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		all = append(all, pushSmallImage(s, "meanwhile", fmt.Sprint("meanwhile ", i)))
		time.Sleep(50 * time.Millisecond)
	}
	before := s.newest()
	s.stop()
	if err := follower.Wait(); err != nil || compared(followed.String()) < 26 {
		t.Fatalf("%v\n%s", err, followed.String())
	}
	s.onStore("redis")
	s.start()
	checkMoved(t, s, all, marked.UID, before)

	all = append(all, pushSmallImage(s, "later", "later"))
	before = s.newest()
	bolt := filepath.Join(s.dir, "registry", "tallyman.db")
	if err := os.Rename(bolt, bolt+".old"); err != nil {
		t.Fatal(err)
	}
	if out := s.metadata("migrate", "--from", "redis", "--to", "bolt"); compared(out) < 27 {
		t.Errorf("back, while the registry runs:\n%s", out)
	}
	s.deleteManifest("later", all[25])
	s.stop()
	if out := s.metadata("migrate", "--from", "redis", "--to", "bolt"); compared(out) < 26 {
		t.Errorf("the rest:\n%s", out)
	}
	s.onStore("bolt")
	s.start()
	checkMoved(t, s, all[:25], marked.UID, before)
}

func checkMoved(t *testing.T, s *server, all []string, uid types.UID, before int64) {
	t.Helper()
	list, err := s.images().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != len(all) {
		t.Fatalf("%d images after the move, want %d, %v", len(list.Items), len(all), err)
	}
	if now := s.newest(); now < before {
		t.Errorf("the resourceVersion went from %d back to %d", before, now)
	}
	image := s.image(all[0])
	if image.UID != uid || image.Labels["team"] != "quay" || image.Annotations["note"] != "kept" {
		t.Errorf("after the move: %+v", image.ObjectMeta)
	}
	must(t, "where it lives", s.lives(all[0], "app0", "app0:latest"))
}

// TestMigrateIntoUsedStore: a registry that was started on an empty Redis has derived its
// Images anew. A migration after that brings the additions of clients.
func TestMigrateIntoUsedStore(t *testing.T) {
	s := startWithConfig(t, strings.ReplaceAll(movable, "REDIS", redistest.Start(t, "redis-server").Addr))
	name := pushSmallImage(s, "app", "one")
	marked, err := s.images().Patch(t.Context(), name, types.MergePatchType, []byte(`{"metadata":{"labels":{"team":"quay"}}}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.onStore("redis")
	s.start()
	eventually(t, "the image is derived", func() error {
		_, err := s.images().Get(t.Context(), name, metav1.GetOptions{})
		return err
	})
	if !strings.Contains(s.logText(), "tallyman store migrate --from bolt --to redis") {
		t.Error("the log does not say how to move the old store")
	}
	if out := s.metadata("migrate", "--from", "bolt", "--to", "redis"); !strings.Contains(out, "0 created, 1 merged") {
		t.Errorf("%s", out)
	}
	if image := s.image(name); image.Labels["team"] != "quay" || image.UID != marked.UID {
		t.Errorf("%+v", image.ObjectMeta)
	}
	if out := s.metadata("migrate", "--from", "bolt", "--to", "redis"); !strings.Contains(out, "0 created, 0 merged") {
		t.Errorf("a second time:\n%s", out)
	}
}

// TestMigrateFollowingRedis: following Redis ends with a signal, after which the
// rest is copied and compared.
func TestMigrateFollowingRedis(t *testing.T) {
	s := startWithConfig(t, strings.ReplaceAll(movable, "REDIS", redistest.Start(t, "redis-server").Addr), "REGISTRY_IMAGEAPI_STORE_TYPE=redis")
	pushSmallImage(s, "app", "one")
	follower := exec.CommandContext(t.Context(), binary, "store", "migrate", "--from", "redis", "--to", "bolt", "--follow", s.configFile())
	path := filepath.Join(t.TempDir(), "output")
	output, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	follower.Stdout, follower.Stderr = output, output
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	said := func() string {
		content, _ := os.ReadFile(path)
		return string(content)
	}
	eventually(t, "it has copied what was there", func() error {
		if found := copied.FindStringSubmatch(said()); found == nil || found[1] != found[2] {
			return errors.New(said())
		}
		return nil
	})
	pushSmallImage(s, "app", "two")
	if err := follower.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := follower.Wait(); err != nil || compared(said()) < 3 {
		t.Errorf("%v\n%s", err, said())
	}
}
