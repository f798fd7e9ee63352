package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"tallyman/signatures/signtest"
)

// TestRenewal: `kubectl delete image` of a manifest that the registry holds ends at once, with a
// warning. The Image is as after a push, in the same commit, and trusted as before.
func TestRenewal(t *testing.T) {
	t.Parallel()
	key := signtest.NewKey(t, "ecdsa-p256")
	path := filepath.Join(t.TempDir(), "key.pem")
	writeFile(t, path, key.PEM())
	s := startWithConfig(t, plainConfig+"imageapi:\n  registryhost: registry.example.com\n  auth: {kubeconfigfile: DIR/kubeconfig}\n"+
		"  signatures: {policies: [{name: all, scopes: ['*'], rootsOfTrust: [{policyType: PublicKey, publicKey: {keyPath: '"+path+"'}}]}]}\n")
	image := s.pushImage("team/app:v1", "one")
	signed := signtest.Classic(key.Cosign(signtest.CosignPayload(digest.Digest(image), "registry.example.com/team/app", nil)))
	s.pushArtifact("team/app", signtest.ClassicTag(digest.Digest(image)), signed)
	must(t, "a push", s.lives(image, "team/app", "team/app:v1"))
	s.kubectl("label", "image", image, "user=data")
	before := s.image(image)
	if before.Annotations["tallyman.dev/trusted"] != "team/app" {
		t.Fatalf("it is not trusted: %v", before.Annotations)
	}
	w, err := s.images().Watch(t.Context(), metav1.ListOptions{ResourceVersion: before.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	out := s.kubectl("delete", "image", image) // waits until it is gone
	if !strings.Contains(out, "Warning: the registry holds the manifest in team/app") || !strings.Contains(out, "deleted") {
		t.Errorf("kubectl printed %q", out)
	}
	after := s.image(image)
	if after.UID == before.UID || len(after.Labels) > 0 || after.Annotations["tallyman.dev/trusted"] != "team/app" || len(after.Signatures) != 1 {
		t.Errorf("it is %+v", after.ObjectMeta)
	}
	must(t, "the deletion", s.lives(image, "team/app", "team/app:v1"))
	// A watcher sees the one go and the other come, also if its connection broke in between.
	deleted := nextEvent(t, w)
	sees := func(w watch.Interface) {
		t.Helper()
		event := nextEvent(t, w)
		if added, ok := event.Object.(*imagev1.Image); !ok || event.Type != watch.Added || added.UID != after.UID || added.ResourceVersion != after.ResourceVersion {
			t.Errorf("a watcher saw %s of %s, want ADDED of the new one", event.Type, nameOf(event))
		}
	}
	gone, ok := deleted.Object.(*imagev1.Image)
	if !ok || deleted.Type != watch.Deleted || gone.UID != before.UID {
		t.Fatalf("a watcher saw %s of %s, want DELETED of the former one", deleted.Type, nameOf(deleted))
	}
	sees(w)
	again, err := s.images().Watch(t.Context(), metav1.ListOptions{ResourceVersion: gone.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Stop()
	if event := nextEvent(t, again); event.Type != watch.Deleted {
		t.Errorf("a watch from there begins with %s", event.Type)
	}
	sees(again)
	// A selector that only the former one matches sees it go.
	selecting, err := s.images().Watch(t.Context(), metav1.ListOptions{ResourceVersion: before.ResourceVersion, LabelSelector: "user=data"})
	if err != nil {
		t.Fatal(err)
	}
	defer selecting.Stop()
	if event := nextEvent(t, selecting); event.Type != watch.Deleted || nameOf(event) != image {
		t.Errorf("a watch with a selector saw %s of %s", event.Type, nameOf(event))
	}
	// One that waits for a finalizer is renewed when a client takes that off.
	if _, err := s.images().Patch(t.Context(), image, types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/scan"]}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	s.kubectl("delete", "image", image, "--wait=false")
	if waiting := s.image(image); waiting.UID != after.UID || waiting.DeletionTimestamp == nil {
		t.Errorf("it does not wait: %+v", waiting.ObjectMeta)
	}
	if _, err := s.images().Patch(t.Context(), image, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if renewed := s.image(image); renewed.UID == after.UID || renewed.DeletionTimestamp != nil {
		t.Errorf("it is %+v", renewed.ObjectMeta)
	}
	// With the manifest goes the Image.
	s.deleteManifest("team/app", image)
	must(t, "the deletion of the manifest", s.isGone(image))
	if got := s.request(http.MethodHead, "/v2/team/app/manifests/"+image, "", nil); got.code != http.StatusNotFound {
		t.Errorf("the manifest: %d", got.code)
	}
}
