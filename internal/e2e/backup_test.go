package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tallyman/signatures/signtest"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestBackups: after a restored backup of the store (an export), or of the registry's content (a copy of
// its directory), one resync makes the two agree, and additions of users in the backup are there.
func TestBackups(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]struct {
		run    func(s *server, export, copied string)
		v1, v2 string // the images that the tags have afterwards
		added  bool   // what was pushed after the backup is there
	}{
		"of the store": {func(s *server, export, _ string) {
			if err := os.Remove(filepath.Join(s.dir, "registry", "tallyman.db")); err != nil {
				s.t.Fatal(err)
			}
			if out, err := s.tryMetadata("import", "-f", export); err != nil {
				s.t.Fatalf("import: %v\n%s", err, out)
			}
		}, "three", "", true},
		"of the registry": {func(s *server, _, copied string) {
			root := filepath.Join(s.dir, "registry", "docker")
			if err := errors.Join(os.RemoveAll(root), os.CopyFS(root, os.DirFS(copied))); err != nil {
				s.t.Fatal(err)
			}
		}, "one", "two", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startWithConfig(t, plainConfig+"imageapi: {registryhost: registry.example.com, auth: {kubeconfigfile: DIR/kubeconfig}}\n")
			images := map[string]string{"one": s.pushImage("team/app:v1", "one"), "two": s.pushImage("team/app:v2", "two")}
			if _, err := s.images().Patch(t.Context(), images["one"], types.MergePatchType, []byte(`{"metadata":{"labels":{"set-by":"somebody"}}}`), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			name := digest.Digest(images["one"])
			signature := signtest.Classic(signtest.NewKey(t, "ecdsa-p256").Cosign(signtest.CosignPayload(name, "registry.example.com/team/app", nil)))
			for _, blob := range signature.Blobs {
				s.pushBlob("team/app", blob)
			}
			if got := s.putManifest("team/app", signtest.ClassicTag(name), imagespec.MediaTypeImageManifest, string(signature.Manifest)); got.code != http.StatusCreated {
				t.Fatalf("push of a signature: %d %s", got.code, got.body)
			}
			export, copied := filepath.Join(t.TempDir(), "export"), filepath.Join(t.TempDir(), "copy")
			if out, err := s.tryMetadata("export", "-f", export); err != nil {
				t.Fatalf("export: %v\n%s", err, out)
			}
			if err := os.CopyFS(copied, os.DirFS(filepath.Join(s.dir, "registry", "docker"))); err != nil {
				t.Fatal(err)
			}
			images["three"] = s.pushImage("team/app:v1", "three")
			s.deleteManifest("team/app", images["two"])
			images["new"] = s.pushImage("new/app:v1", "new")
			s.stop()
			restore.run(s, export, copied)
			s.start()
			if out, err := s.tryMetadata("resync", "--confirm", "--grace", "0s"); err != nil {
				t.Errorf("resync: %v\n%s", err, out)
			}
			for tag, want := range map[string]string{"v1": restore.v1, "v2": restore.v2} {
				got, err := s.tags("team").Get(t.Context(), "app:"+tag, metav1.GetOptions{})
				if want == "" && !apierrors.IsNotFound(err) || want != "" && (err != nil || got.Image.Name != images[want]) {
					t.Errorf("%s is not image %q: %+v, %v", tag, want, got, err)
				}
			}
			if err := s.lives(images["new"], "new/app", "new/app:v1"); (err == nil) != restore.added {
				t.Errorf("the image that was pushed afterwards: %v", err)
			}
			tags := ""
			if restore.v1 == "one" {
				tags = "team/app:v1"
			}
			must(t, "the image from before", s.lives(images["one"], "team/app", tags))
			image, err := s.images().Get(t.Context(), images["one"], metav1.GetOptions{})
			if err != nil || image.Labels["set-by"] != "somebody" {
				t.Errorf("labels are %v, %v", image.Labels, err)
			}
			if len(image.Signatures) != 1 {
				t.Errorf("it has %d signatures", len(image.Signatures))
			}
			if out, err := s.tryMetadata("resync", "--grace", "0s"); err != nil || !strings.Contains(out, "0 recorded, 0 removed, 0 missing") {
				t.Errorf("another resync: %v\n%s", err, out)
			}
		})
	}
}

// TestStreamNamespace: after a change of the default namespace, tags are in the new one with their history,
// and watchers see them there.
func TestStreamNamespace(t *testing.T) {
	t.Parallel()
	s := startWithConfig(t, plainConfig+"imageapi: {registryhost: registry.example.com, auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	s.pushImage("app:v1", "one")
	two := s.pushImage("app:v1", "two")
	s.pushImage("team/app:v1", "one")
	eventually(t, "the records are complete", func() error {
		if !strings.Contains(s.logText(), "resync complete") {
			return errors.New("they are not")
		}
		return nil
	})
	s.stop()
	s.env = append(s.env, "REGISTRY_IMAGEAPI_STREAMS_NAMESPACE=images")
	s.start()
	eventually(t, "the tag moves", func() error {
		tag, err := s.tags("images").Get(t.Context(), "app:v1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if tag.Image.Name != two || len(tag.Status.Items) != 2 {
			return fmt.Errorf("it is %+v", tag)
		}
		if all, err := s.tags("").List(t.Context(), metav1.ListOptions{}); err != nil || len(all.Items) != 2 {
			return fmt.Errorf("there are %d tags, %w", len(all.Items), err)
		}
		return nil
	})
	must(t, "an image of it", s.lives(two, "app", "app:v1"))
}
