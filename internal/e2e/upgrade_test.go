package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/storage/redis/redistest"
)

// format1Commit is the last one whose binary knows format 1 of the store alone.
const format1Commit = "d895b80"

// format1Binary builds that binary from the repository's history, once, beside the one
// under test.
var format1Binary = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(binary), "format1")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	archive, unpack := exec.Command("git", "archive", format1Commit), exec.Command("tar", "x", "-C", dir)
	archive.Dir = "../.."
	var err error
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return "", err
	}
	if err := errors.Join(unpack.Start(), archive.Run(), unpack.Wait()); err != nil {
		return "", fmt.Errorf("the history does not reach back to %s, is the clone shallow? %w", format1Commit, err)
	}
	program := filepath.Join(dir, "tallyman-format1")
	build := exec.Command("go", "build", "-o", program, "./cmd/tallyman")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", format1Commit, err, out)
	}
	return program, nil
})

func buildFormat1(t *testing.T) string {
	t.Helper()
	program, err := format1Binary()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// TestUpgrade replaces three replicas of the version before one by one, under load.
// While one of them is left, the store keeps its format; after that it is changed, the
// index is filled, and the version before refuses it.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	old := buildFormat1(t)
	redis := redistest.Start(t, "redis-server", redistest.Durable...)
	format := func() string { return fmt.Sprint(redis.Command(t, "HGET", "{tallyman}:meta", "format")) }
	shared := t.TempDir()
	var replicas []*server
	for range 3 {
		config := strings.NewReplacer("SHARED", shared, "REDIS", redisAt(redis.Addr)(0)).Replace(replicaConfig)
		replicas = append(replicas, startProgram(t, old, config))
	}
	before := pushSmallImage(replicas[0], "before/app", "before")
	underLoad(t, replicas, func() {
		for i, s := range replicas {
			s.stop()
			s.program = binary
			s.start()
			if got := format(); i < 2 && got != "1" {
				t.Errorf("the format is %s while an old replica runs", got)
			}
		}
		eventually(t, "the store has the new format", func() error {
			if got := format(); got != "3" {
				return fmt.Errorf("format %s", got)
			}
			return nil
		})
		eventually(t, "the index is complete", func() error {
			state := fmt.Sprint(redis.Command(t, "HGETALL", "{tallyman}:indexes"))
			if !strings.Contains(state, `"complete":true`) {
				return errors.New(state)
			}
			return nil
		})
	})
	for _, selector := range []string{"repository=before/app", "tag=before/app:latest", "tag=latest,repository=before/app"} {
		list, err := replicas[1].images().List(t.Context(), metav1.ListOptions{FieldSelector: selector})
		if err != nil || len(list.Items) != 1 || list.Items[0].Name != before {
			t.Errorf("%s: %d images, %v", selector, len(list.Items), err)
		}
	}
	eventually(t, "the tag that an old replica recorded is an image tag", func() error {
		_, err := replicas[1].tags("before").Get(t.Context(), "app:latest", metav1.GetOptions{})
		return err
	})
	if left, _ := redis.Command(t, "KEYS", "{tallyman}:object:/images/*").([]any); len(left) > 0 {
		t.Errorf("%d Images are still as format 1 stored them, such as %v", len(left), left[0])
	}
	replicas[0].stop()
	out, err := exec.Command(old, append([]string{"serve"}, replicas[0].args[1:]...)...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "format 3") {
		t.Errorf("the version before does not refuse the store clearly: %v\n%s", err, tail(string(out), 5))
	}
	replicas[1].checkMetadata(t)
}

// startProgram is startWithConfig with another binary.
func startProgram(t *testing.T, program, config string) *server {
	t.Helper()
	dir, addr := t.TempDir(), freeAddress(t)
	path := filepath.Join(dir, "config.yml")
	writeFile(t, path, strings.NewReplacer("ADDR", addr, "DIR", dir).Replace(config))
	s := &server{
		t: t, dir: dir, addr: addr, kubeconfig: filepath.Join(dir, "kubeconfig"), program: program,
		args: []string{"serve", "--data-dir", dir, path},
	}
	s.start()
	return s
}

// checkMetadata runs `tallyman store check` on the server's store, which is in use,
// until its index is complete.
func (s *server) checkMetadata(t *testing.T) {
	t.Helper()
	eventually(t, "the store is well and its index complete", func() error {
		out, err := s.tryMetadata("check")
		if err != nil || !strings.Contains(out, "(index: complete)") {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// TestUpgradeCommand: the command changes the format at once, under a running server.
func TestUpgradeCommand(t *testing.T) {
	t.Parallel()
	old := buildFormat1(t)
	redis := redistest.Start(t, "redis-server", redistest.Durable...)
	config := strings.NewReplacer("SHARED", t.TempDir(), "REDIS", redisAt(redis.Addr)(0)).Replace(replicaConfig)
	s := startProgram(t, old, config)
	first := pushSmallImage(s, "team/app", "one")
	s.stop()
	s.program = binary
	s.start()
	second := pushSmallImage(s, "team/app", "two")
	if out, err := s.tryMetadata("check"); err != nil || !strings.Contains(out, "none in format 1") {
		t.Errorf("check in format 1: %v, %s", err, out)
	}
	for _, want := range []string{"from format 1 to format 3", "has this version's format"} {
		if out, err := s.tryMetadata("upgrade"); err != nil || !strings.Contains(out, want) {
			t.Errorf("upgrade: %v, %s, want %q", err, out, want)
		}
	}
	third := pushSmallImage(s, "team/app", "three")
	s.checkMetadata(t)
	list, err := s.images().List(t.Context(), metav1.ListOptions{FieldSelector: "repository=team/app"})
	if err != nil || len(list.Items) != 3 {
		t.Errorf("%d images, %v, want %s, %s and %s", len(list.Items), err, first, second, third)
	}
	if out, err := s.tryMetadata("check", "--rebuild-index"); err != nil || !strings.Contains(out, "(index: complete)") {
		t.Errorf("check --rebuild-index: %v, %s", err, out)
	}
}

// TestUpgradeEmbedded: a store of the version before opens with its content, and that
// version refuses it afterwards.
func TestUpgradeEmbedded(t *testing.T) {
	t.Parallel()
	old := buildFormat1(t)
	s := startProgram(t, old, "version: 0.1\nlog: {level: warn, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: DIR/registry}, delete: {enabled: true}}\n"+
		"http: {addr: ADDR}\nimageapi: {auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	name := pushSmallImage(s, "team/app", "one")
	if _, err := s.images().Patch(t.Context(), name, "application/merge-patch+json", []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	before := s.image(name)
	s.stop()
	s.program = binary
	s.start()
	// It may have got annotations that the old version did not know.
	if got := s.image(name); got.UID != before.UID || got.Labels["a"] != "b" || got.DockerImageManifest != before.DockerImageManifest {
		t.Errorf("the Image is %+v, was %+v", got, before)
	}
	for field, label := range map[string]string{"repository=team/app": "", "tag=latest": "a=b", "": "a in (b,c)"} {
		list, err := s.images().List(t.Context(), metav1.ListOptions{FieldSelector: field, LabelSelector: label})
		if err != nil || len(list.Items) != 1 {
			t.Errorf("%s %s: %d images, %v", field, label, len(list.Items), err)
		}
	}
	eventually(t, "the tag that the old version recorded is an image tag", func() error {
		tag, err := s.tags("team").Get(t.Context(), "app:latest", metav1.GetOptions{})
		if err == nil && (len(tag.Status.Items) != 1 || tag.Status.Items[0].Image != name) {
			err = fmt.Errorf("its history is %+v", tag.Status.Items)
		}
		return err
	})
	s.checkMetadata(t)
	s.stop()
	out, err := exec.Command(old, s.args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "format 4") {
		t.Errorf("the version before does not refuse the store clearly: %v\n%s", err, tail(string(out), 5))
	}
}
