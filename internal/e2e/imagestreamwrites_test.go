package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	imagev1 "github.com/openshift/api/image/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestTagImages replays the requests of `oc tag` for streams whose repositories have names of each form: the
// tag is there for the registry's clients, with its content, and `oc tag -d` takes it away.
func TestTagImages(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, test := range []struct{ from, namespace, stream, to, toNamespace, toStream string }{
		{"team/app", "team", "app", "team/app", "team", "app"},
		{"team/app", "team", "app", "prod/app", "prod", "app"},
		{"single", "default", "single", "prod/a/b", "prod", "a..b"},
		{"team/a/b__c", "team", "a..b__c", "other", "default", "other"},
		{"my_team/app", "default", "my_team..app", "team/x.y", "team", "x.y"},
	} {
		image := s.pushImage(test.from+":v1", test.from)
		stream, err := s.client().ImageStreams(test.namespace).Get(t.Context(), test.stream, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		head := stream.Status.Tags[0].Items[0]
		if head.Image != image {
			t.Fatalf("%s: the head is %s, want %s", test.from, head.Image, image)
		}
		tag := &imagev1.ImageStreamTag{ObjectMeta: metav1.ObjectMeta{Name: test.toStream + ":prod", Namespace: test.toNamespace}, Tag: &imagev1.TagReference{
			From:            &corev1.ObjectReference{Kind: "ImageStreamImage", Namespace: test.namespace, Name: test.stream + "@" + head.Image},
			ImportPolicy:    imagev1.TagImportPolicy{ImportMode: imagev1.ImportModeLegacy},
			ReferencePolicy: imagev1.TagReferencePolicy{Type: imagev1.SourceTagReferencePolicy},
		}}
		tags := s.client().ImageStreamTags(test.toNamespace)
		updated, err := tags.Update(t.Context(), tag, metav1.UpdateOptions{})
		if err != nil {
			t.Errorf("%s to %s: %v", test.from, test.to, err)
			continue
		}
		if updated.Image.Name != image || updated.Tag.From.Name != test.stream+"@"+image {
			t.Errorf("%s to %s: %+v", test.from, test.to, updated)
		}
		reference := s.addr + "/" + test.to + ":prod"
		if out, err := tryCommand(t, nil, "crane", "pull", "--insecure", reference, filepath.Join(t.TempDir(), "image.tar")); err != nil {
			t.Errorf("pull of %s: %s %v", test.to, out, err)
		}
		if err := tags.Delete(t.Context(), tag.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("%s: %v", test.to, err)
		}
		if out, err := tryCommand(t, nil, "crane", "digest", "--insecure", reference); err == nil {
			t.Errorf("%s has its tag still: %s", test.to, out)
		}
		if err := tags.Delete(t.Context(), tag.Name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", test.to, err)
		}
	}
	if text := s.logText(); !strings.Contains(text, "verb=tag") && !strings.Contains(text, `"verb":"tag"`) {
		t.Error("the audit log lacks the tags")
	}
}

// TestEditStreams: kubectl makes, changes and deletes image streams, their tags follow in the registry, and a
// deleted one takes its tags along.
func TestEditStreams(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	one, two := s.pushImage("team/app:v1", "one"), s.pushImage("team/app:v2", "two")
	manifest := filepath.Join(t.TempDir(), "stream.yml")
	writeFile(t, manifest, `{apiVersion: image.openshift.io/v1, kind: ImageStream, metadata: {name: app, namespace: team, labels: {a: b}}, spec: {lookupPolicy: {local: true}, tags: [
		{name: stable, from: {kind: ImageStreamTag, name: v1}}, {name: external, reference: true, from: {kind: DockerImage, name: "example.com/a:b"}}]}}`)
	digest := func(tag string) string {
		got := s.request(http.MethodHead, "/v2/team/app/manifests/"+tag, "", http.Header{"Accept": {"*/*"}})
		return got.header.Get("Docker-Content-Digest")
	}
	for _, step := range []struct{ command, want, stable string }{
		{"apply --dry-run=server -f " + manifest, "configured (server dry run)", ""},
		{"apply --server-side -f " + manifest, "serverside-applied", one},
		{"apply -f " + manifest, "imagestream.image.openshift.io/app", one},
		{"get is app -n team -o jsonpath={.spec.tags[*].name}", "external stable", one},
		{"get itag app:external -n team -o jsonpath={.status.items[0].dockerImageReference}", "example.com/a:b", one},
		{"label is app -n team c=d", "labeled", one},
		{"get istag app:stable -n team -o jsonpath={.metadata.labels}", `{"a":"b","c":"d"}`, one},
		{`patch is app -n team --type merge -p {"spec":{"lookupPolicy":{"local":false}}}`, "patched", one},
		{"get istag app:v1 -n team -o jsonpath={.lookupPolicy.local}", "false", one},
		{`patch is app -n team -p {"spec":{"tags":[{"name":"stable","from":{"kind":"ImageStreamTag","name":"app:v2"}}]}}`, "patched", two},
		{"annotate istag app:stable -n team description=ready", "annotated", two},
		{"get istag app:stable -n team -o jsonpath={.image.metadata.annotations.description}", "ready", two},
		{"get is app -n team -o jsonpath={.spec.tags[*].name}", "external stable", two},
		{`patch is app -n team -p {"spec":{"tags":[{"name":"stable","from":{"kind":"ImageStreamTag","name":"none:v2"}}]}}`, `spec.tags[stable].from.name: Not found: "none:v2"`, two},
		{"delete istag app:external -n team", `"app:external" not found`, two}, // there is no Image, so it is an image tag alone
		{"delete itag app:external -n team", "deleted", two},
	} {
		out, err := tryCommand(t, s.kubectlEnv(), "kubectl", strings.Fields(step.command)...)
		if !strings.Contains(out, step.want) {
			t.Errorf("kubectl %s: %s %v, want %s", step.command, out, err, step.want)
		}
		if got := digest("stable"); got != step.stable {
			t.Errorf("after kubectl %s, stable is %s, want %s", step.command, got, step.stable)
		}
	}
	three := s.pushImage("team/app:v2", "three")
	if got := digest("stable"); got != three {
		t.Errorf("stable is %s and not that of v2, which it tracks, %s", got, three)
	}
	for n := range 20 {
		s.pushImage(fmt.Sprint("team/app:n", n), "one")
	}
	s.pushImage("team/other:v1", "one")
	if out := s.kubectl("delete", "is", "app", "-n", "team", "--timeout=60s"); !strings.Contains(out, "deleted") {
		t.Errorf("kubectl delete: %s", out)
	}
	if got := s.request(http.MethodGet, "/v2/team/app/tags/list", "", nil); got.code != http.StatusNotFound && !strings.Contains(got.body, `"tags":[]`) && !strings.Contains(got.body, `"tags":null`) {
		t.Errorf("the tags are there still: %d %s", got.code, got.body)
	}
	if out := s.kubectl("get", "is,istag", "-n", "team", "-o", "name"); out != "imagestream.image.openshift.io/other\nimagestreamtag.image.openshift.io/other:v1\n" {
		t.Errorf("afterwards %s", out)
	}
}

// TestMissingStreams: kubectl says of an object of a namespace that it is not there, by its name.
func TestMissingStreams(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for what, want := range map[string]string{
		"is/none": `imagestreams.image.openshift.io "none" not found`, "istag/app:none": `imagestreamtags.image.openshift.io "app:none" not found`,
		"itag/app:none": `imagetags.image.openshift.io "app:none" not found`, "isimage/app@sha256:12": `imagestreams.image.openshift.io "app" not found`,
	} {
		if out, err := tryCommand(t, s.kubectlEnv(), "kubectl", "get", what, "-n", "team"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v %s, want %s", what, err, out, want)
		}
	}
}

// TestPruneStreams replays the requests of `oc adm prune images` for streams: a shorter history by PUT of the
// status.
func TestPruneStreams(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, content := range []string{"one", "two", "three"} {
		s.pushImage("team/app:v1", content)
		s.pushImage("team/app:v2", content)
	}
	streams := s.client().ImageStreams("team")
	stream, err := streams.Get(t.Context(), "app", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stale := stream.DeepCopy()
	stream.Status.Tags[0].Items = stream.Status.Tags[0].Items[:1]
	stream.Status.Tags = stream.Status.Tags[:1]
	updated, err := streams.UpdateStatus(t.Context(), stream, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(updated.Status.Tags) != 1 || len(updated.Status.Tags[0].Items) != 1 {
		t.Errorf("%+v", updated.Status)
	}
	if got := s.request(http.MethodGet, "/v2/team/app/tags/list", "", nil); !strings.Contains(got.body, `["v1"]`) {
		t.Errorf("the registry has %s", got.body)
	}
	if _, err := streams.UpdateStatus(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a stale one: %v", err)
	}
}

// TestTagAcrossNamespaces: a user tags an image of another namespace if the user may read it there. One who
// may not learns nothing of it.
func TestTagAcrossNamespaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rbac, tokens := filepath.Join(dir, "rbac.yml"), filepath.Join(dir, "tokens.csv")
	binding := func(user, namespace, role string) string {
		return fmt.Sprintf("---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: %s-%s, namespace: %s}\n"+
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: %s}\nsubjects: [{kind: User, name: %s}]\n", user, role, namespace, role, user)
	}
	writeFile(t, rbac, binding("alice", "prod", "registry-editor")+binding("alice", "team", "registry-viewer")+binding("bob", "prod", "registry-editor")+binding("carol", "prod", "registry-viewer"))
	writeFile(t, tokens, "token-of-alice,alice,1\ntoken-of-bob,bob,2\ntoken-of-carol,carol,3\n")
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig, rbacfile: '"+rbac+"', tokenauthfile: '"+tokens+"'}}\n")
	image := pushSmallImage(s, "team/app", "content")
	post := func(user, from string) answer {
		tag := imagev1.ImageStreamTag{
			TypeMeta: metav1.TypeMeta{APIVersion: "image.openshift.io/v1", Kind: "ImageStreamTag"}, ObjectMeta: metav1.ObjectMeta{Name: "app:" + user},
			Tag: &imagev1.TagReference{From: &corev1.ObjectReference{Kind: "ImageStreamTag", Namespace: "team", Name: from}},
		}
		body, err := json.Marshal(tag)
		if err != nil {
			t.Fatal(err)
		}
		return s.request(http.MethodPost, api+"/namespaces/prod/imagestreamtags", string(body), http.Header{"Authorization": {"Bearer token-of-" + user}, "Content-Type": {"application/json"}})
	}
	if got := post("alice", "app:latest"); got.code != http.StatusCreated || !strings.Contains(got.body, image) {
		t.Errorf("alice: %d %s", got.code, got.body)
	}
	there, missing := post("bob", "app:latest"), post("bob", "app:none")
	if there.code != http.StatusUnprocessableEntity || there.body != missing.body || !strings.Contains(there.body, `spec.tags[bob].from: Forbidden: team/app`) {
		t.Errorf("bob: %d %s\n%d %s", there.code, there.body, missing.code, missing.body)
	}
	if got := post("carol", "app:latest"); got.code != http.StatusForbidden {
		t.Errorf("carol: %d %s", got.code, got.body)
	}
	patch := `{"metadata":{"labels":{"a":"b"}}}`
	if _, err := s.client().ImageStreams("prod").Patch(t.Context(), "app", types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Errorf("an administrator: %v", err)
	}
}
