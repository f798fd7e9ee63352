package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"tallyman/storage/redis/redistest"
)

// isGone wants that there is no Image.
func (s *server) isGone(digest string) error {
	_, err := s.images().Get(s.t.Context(), digest, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s is still there: %w", digest, err)
}

// TestResync: after changes of the registry's storage that no process has seen, one command makes
// the records agree: with the embedded store in use, with no process, and with two replicas.
func TestResync(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (s *server, root string){
		"embedded store in use": func(t *testing.T) (*server, string) {
			s := startWithConfig(t, plainConfig+"imageapi: {registryhost: registry.example.com, auth: {kubeconfigfile: DIR/kubeconfig}}\n")
			return s, filepath.Join(s.dir, "registry")
		},
		"no process": func(t *testing.T) (*server, string) {
			s := startWithConfig(t, plainConfig+"imageapi: {registryhost: registry.example.com, backfill: false, auth: {kubeconfigfile: DIR/kubeconfig}}\n")
			return s, filepath.Join(s.dir, "registry")
		},
		"two replicas": func(t *testing.T) (*server, string) {
			replicas := startReplicas(t, 2, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))
			content, err := os.ReadFile(replicas[0].configFile())
			if err != nil {
				t.Fatal(err)
			}
			_, root, _ := strings.Cut(string(content), "rootdirectory: ")
			root, _, _ = strings.Cut(root, "}")
			return replicas[1], root
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, root := start(t)
			if out, err := s.resync(name); err != nil { // of the empty registry: then its records are complete
				t.Fatalf("%v\n%s", err, out)
			}
			repositories := filepath.Join(root, "docker/registry/v2/repositories")
			untagged, lost, stays := s.pushImage("team/app:v1", "one"), s.pushImage("lost/app:v1", "two"), s.pushImage("team/app:v2", "three")
			must(t, "a push", s.lives(lost, "lost/app", "lost/app:v1"))
			for _, gone := range []string{"lost", "team/app/_manifests/tags/v1"} {
				if err := os.RemoveAll(filepath.Join(repositories, gone)); err != nil {
					t.Fatal(err)
				}
			}
			// Distribution's own garbage collection takes the manifest that has no tag.
			config := filepath.Join(t.TempDir(), "config.yml")
			writeFile(t, config, fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\n", root))
			command(t, nil, tool(t, "registry"), "garbage-collect", "-m", config)

			out, err := s.resync(name)
			if err != nil || !strings.Contains(out, "0 recorded, 0 removed, 4 missing") {
				t.Errorf("in the grace period: %v\n%s", err, out)
			}
			must(t, "the grace period", s.lives(untagged, "team/app", "team/app:v1"))
			if out, err = s.resync(name, "--grace", "0s"); err != nil || !strings.Contains(out, "4 removed, 0 missing") {
				t.Errorf("without a grace period: %v\n%s", err, out)
			}
			must(t, "an image that was collected", s.isGone(untagged))
			must(t, "an image of a removed repository", s.isGone(lost))
			must(t, "an image that stays", s.lives(stays, "team/app", "team/app:v2"))
			if err := os.RemoveAll(repositories); err != nil { // as if the disk were not mounted
				t.Fatal(err)
			}
			if err := os.MkdirAll(repositories, 0o750); err != nil {
				t.Fatal(err)
			}
			if out, err = s.resync(name, "--grace", "0s"); err == nil || !strings.Contains(out, "lacks 2 of 2 things") || !strings.Contains(out, "--confirm") {
				t.Errorf("of an empty registry: %v\n%s", err, out)
			}
			must(t, "the loss of the storage", s.lives(stays, "team/app", "team/app:v2"))
			eventually(t, "the readiness check says so", func() error {
				got := s.request(http.MethodGet, "/readyz?verbose", "", nil)
				if got.code != http.StatusOK || !strings.Contains(got.body, "resync (the registry lacks 2 of 2 things that are recorded") {
					return fmt.Errorf("%d %s", got.code, got.body)
				}
				return nil
			})
			if out, err = s.resync(name, "--grace", "0s", "--confirm"); err != nil || !strings.Contains(out, "2 removed") {
				t.Errorf("confirmed: %v\n%s", err, out)
			}
			must(t, "the confirmation", s.isGone(stays))
		})
	}
}

// resync runs `tallyman store resync`, with the process stopped if there is to be none.
func (s *server) resync(name string, args ...string) (string, error) {
	if name == "no process" {
		s.stop()
		defer s.start()
	}
	return s.tryMetadata(append([]string{"resync"}, args...)...)
}
