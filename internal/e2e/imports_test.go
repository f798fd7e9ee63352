package e2e

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestImportImages replays the requests of `oc import-image` against a registry that wants credentials: an image
// and a list of images come with all of their content, and the answer says what does not.
func TestImportImages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	passwords, docker := htpasswdFile(t, "reader", "secret"), filepath.Join(dir, "config.json")
	upstream := startPlainRegistry(t, "auth: {htpasswd: {realm: upstream, path: "+passwords+"}}\n")
	writeFile(t, docker, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, upstream, base64.StdEncoding.EncodeToString([]byte("reader:secret"))))
	login := []string{"DOCKER_CONFIG=" + dir}
	command(t, login, "crane", "append", "--insecure", "-f", layerTar(t, "content"), "-t", upstream+"/vendor/app:1.0")
	command(t, login, "crane", "index", "append", "--insecure", "-m", upstream+"/vendor/app:1.0", "-t", upstream+"/vendor/app:1.1")
	digest := strings.TrimSpace(command(t, login, "crane", "digest", "--insecure", upstream+"/vendor/app:1.0"))

	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig}, imports: {enabled: true, registries: [{host: '"+upstream+"', insecure: true}], credentialsfile: '"+docker+"'}}\n")
	from := func(name string) corev1.ObjectReference {
		return corev1.ObjectReference{Kind: "DockerImage", Name: upstream + "/" + name}
	}
	insecure := imagev1.TagImportPolicy{Insecure: true}
	request := &imagev1.ImageStreamImport{ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: "team"}, Spec: imagev1.ImageStreamImportSpec{Import: true, Images: []imagev1.ImageImportSpec{
		{From: from("vendor/app:1.0"), To: &corev1.LocalObjectReference{Name: "one"}, ImportPolicy: insecure},
		{From: from("vendor/none:1"), To: &corev1.LocalObjectReference{Name: "none"}, ImportPolicy: insecure},
		{From: from("vendor/app:1.0"), To: &corev1.LocalObjectReference{Name: "secure"}},
	}}}
	answer, err := s.client().ImageStreamImports("team").Create(t.Context(), request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	images := answer.Status.Images
	if images[0].Status.Status != metav1.StatusSuccess || images[0].Image.Name != digest || images[0].Image.DockerImageReference != upstream+"/vendor/app@"+digest || len(images[0].Image.DockerImageLayers) != 1 {
		t.Errorf("the first: %+v", images[0])
	}
	if images[1].Status.Reason != metav1.StatusReasonNotFound || images[2].Status.Reason != metav1.StatusReasonBadRequest {
		t.Errorf("the others: %+v, %+v", images[1].Status, images[2].Status)
	}
	if out := command(t, nil, "crane", "digest", "--insecure", s.addr+"/team/app:one"); strings.TrimSpace(out) != digest {
		t.Errorf("the registry has %s, want %s", out, digest)
	}
	command(t, nil, "crane", "validate", "--remote", s.addr+"/team/app:one", "--insecure")
	if got := s.kubectl("get", "istag", "-n", "team", "-o", "name"); got != "imagestreamtag.image.openshift.io/app:one\n" {
		t.Errorf("tags %s", got)
	}
	if got := s.kubectl("get", "itag", "-n", "team", "app:none", "--no-headers"); !strings.Contains(got, "ImportFailed (NotFound)") {
		t.Errorf("the failed one: %s", got)
	}

	whole := &imagev1.ImageStreamImport{ObjectMeta: metav1.ObjectMeta{Name: "all", Namespace: "team"}, Spec: imagev1.ImageStreamImportSpec{
		Import: true, Repository: &imagev1.RepositoryImportSpec{From: from("vendor/app"), ImportPolicy: insecure},
	}}
	answer, err = s.client().ImageStreamImports("team").Create(t.Context(), whole, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if repository := answer.Status.Repository; repository.Status.Status != metav1.StatusSuccess || len(repository.Images) != 2 || repository.Images[0].Tag != "1.1" {
		t.Errorf("the repository: %+v", repository)
	}
	command(t, nil, "crane", "validate", "--remote", s.addr+"/team/all:1.1", "--insecure")

	before := s.kubectl("get", "images", "-o", "name")
	if n := strings.Count(before, "\n"); n != 2 { // the list, and its image
		t.Errorf("%d Images: %s", n, before)
	}
	if _, err := s.client().ImageStreamImports("team").Create(t.Context(), whole, metav1.CreateOptions{}); err != nil {
		t.Errorf("once more: %v", err)
	}
	if after := s.kubectl("get", "images", "-o", "name"); after != before {
		t.Errorf("after the same import %s", after)
	}

	// `oc tag` with a source in another registry asks for an import, which begins by itself.
	source := from("vendor/app:1.1")
	tag := &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: "app:asked", Namespace: "team"}, Tag: &imagev1.TagReference{From: &source, ImportPolicy: insecure}}
	if _, err := s.client().ImageStreamTags("team").Update(t.Context(), tag, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	s.kubectl("wait", "imagetag/app:asked", "-n", "team", "--for=jsonpath={.status.items[0].image}", "--timeout=2m")
	command(t, nil, "crane", "validate", "--remote", s.addr+"/team/app:asked", "--insecure")

	other := whole.DeepCopy()
	other.Spec.Repository.From.Name = "registry.example.com/app"
	if _, err := s.client().ImageStreamImports("team").Create(t.Context(), other, metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "not allowed by allow list") {
		t.Errorf("another registry: %v", err)
	}
}

// TestNoImports: imports are off unless they are enabled.
func TestNoImports(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	request := &imagev1.ImageStreamImport{ObjectMeta: metav1.ObjectMeta{Name: "app"}, Spec: imagev1.ImageStreamImportSpec{Images: []imagev1.ImageImportSpec{{From: corev1.ObjectReference{Kind: "DockerImage", Name: "busybox"}}}}}
	if _, err := s.client().ImageStreamImports("team").Create(t.Context(), request, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "imageapi.imports.enabled") {
		t.Errorf("%v", err)
	}
}
