package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imagev1 "github.com/openshift/api/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"

	"tallyman/storage/redis/redistest"
)

// teams have a namespace each. The user of each may read it, and nothing else.
var teams = []string{"red", "green", "blue"}

// teamRBAC gives each team the role registry-viewer in its namespace.
func teamRBAC() string {
	var rules strings.Builder
	for _, team := range teams {
		fmt.Fprintf(&rules, "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: viewers, namespace: %s}\n"+
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: registry-viewer}\nsubjects: [{kind: User, name: %s}]\n", team, team)
	}
	return rules.String()
}

// TestTeams: a user who may read one namespace gets everything about it and nothing about others, also
// about an image that all have, with kubectl.
func TestTeams(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rbac, tokens := filepath.Join(dir, "rbac.yml"), filepath.Join(dir, "tokens.csv")
	var users strings.Builder
	for _, team := range teams {
		fmt.Fprintf(&users, "token-of-%s,%s,%s\n", team, team, team)
	}
	writeFile(t, rbac, teamRBAC())
	writeFile(t, tokens, users.String())
	s := startWithConfig(t, plainConfig+"imageapi: {auth: {kubeconfigfile: DIR/kubeconfig, rbacfile: '"+rbac+"', tokenauthfile: '"+tokens+"'}}\n")
	names := map[string]string{}
	for _, team := range teams {
		names[team] = pushSmallImage(s, team+"/app-of-"+team, team)
		pushSmallImage(s, team+"/shared", "shared")
	}
	for _, team := range teams {
		kubectl := func(args ...string) string {
			env := append(s.kubectlEnv(), "KUBECONFIG=/dev/null")
			out, err := tryCommand(t, env, "kubectl", append([]string{"--server", "https://" + s.addr, "--insecure-skip-tls-verify", "--token", "token-of-" + team}, args...)...)
			if err != nil {
				out += " (" + err.Error() + ")"
			}
			return out
		}
		mine := ""
		for _, args := range []string{
			"get imagestreams,imagestreamtags,imagetags -n TEAM -o yaml", "get is,istag,itag -n TEAM -o wide", "get all -n TEAM", "describe is -n TEAM", "describe istag -n TEAM",
			"get isimage -n TEAM shared@sha256: -o yaml", "get --raw /apis/image.openshift.io/v1/namespaces/TEAM/imagestreams/shared/layers",
			"get istag -n TEAM -o name --watch --request-timeout=2s", "auth can-i --list -n TEAM",
		} {
			mine += kubectl(strings.Fields(strings.ReplaceAll(args, "TEAM", team))...)
		}
		for _, want := range []string{"app-of-" + team, "shared:latest", names[team]} {
			if !strings.Contains(mine, want) {
				t.Errorf("%s does not see %s:\n%s", team, want, mine)
			}
		}
		for _, other := range teams {
			if other == team {
				continue
			}
			for _, secret := range []string{"app-of-" + other, other + "/", names[other], "namespace: " + other} {
				if strings.Contains(mine, secret) {
					t.Errorf("%s sees %s of %s:\n%s", team, secret, other, mine)
				}
			}
			for _, args := range []string{
				"get is -n OTHER", "get istag -n OTHER app-of-OTHER:latest", "get istag -n OTHER none:none", "get itag -n OTHER --field-selector deleted=true",
				"get isimage -n OTHER app-of-OTHER@" + names[other], "get --raw /apis/image.openshift.io/v1/namespaces/OTHER/imagestreams/shared/layers",
				"get istag -n OTHER --watch --request-timeout=5s", "get is -A", "get istag -A", "get itag -A", "get images", "get image " + names[team],
			} {
				if out := kubectl(strings.Fields(strings.ReplaceAll(args, "OTHER", other))...); !strings.Contains(out, "Forbidden") && !strings.Contains(out, "forbidden") {
					t.Errorf("%s: kubectl %s: %s", team, args, out)
				}
			}
		}
	}
}

// TestFollowTags: a watch of image stream tags through one process has exactly the pushes through others, in
// order, and imagetags has the history.
func TestFollowTags(t *testing.T) {
	t.Parallel()
	replicas := startReplicas(t, 3, redisAt(redistest.Start(t, "redis-server", redistest.Durable...).Addr))
	client, err := dynamic.NewForConfig(replicas[0].restConfig()) // OpenShift's client cannot watch them
	if err != nil {
		t.Fatal(err)
	}
	resource := client.Resource(imagev1.GroupVersion.WithResource("imagestreamtags")).Namespace("team")
	list, err := resource.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	events, err := resource.Watch(t.Context(), metav1.ListOptions{ResourceVersion: list.GetResourceVersion(), AllowWatchBookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	var want []string
	for n := range 20 {
		s := replicas[1+n%2]
		pushSmallImage(s, "elsewhere/app", fmt.Sprint("other ", n))
		want = append(want, pushSmallImage(s, "team/app", fmt.Sprint("content ", n)))
	}
	var got []string
	for len(got) < len(want) {
		select {
		case event, ok := <-events.ResultChan():
			if !ok || event.Type == watch.Error {
				t.Fatalf("the watch ended: %v", event.Object)
			}
			if event.Type == watch.Bookmark {
				continue
			}
			image, _, err := unstructured.NestedString(event.Object.(*unstructured.Unstructured).Object, "image", "metadata", "name")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, image)
		case <-time.After(patience):
			t.Fatalf("only %d events", len(got))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	tag, err := replicas[2].tags("team").Get(t.Context(), "app:latest", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(want)
	for i, item := range tag.Status.Items {
		if item.Image != want[i] {
			t.Errorf("item %d is %s, want %s", i, item.Image, want[i])
		}
	}
	if len(tag.Status.Items) != 20 {
		t.Errorf("%d items", len(tag.Status.Items))
	}
}

// TestWaitForTags: kubectl wait works on image stream tags: until one is there, has something, or is gone.
func TestWaitForTags(t *testing.T) {
	t.Parallel()
	s := startWithConfig(t, plainConfig+"imageapi: {registryhost: registry.example.com, auth: {kubeconfigfile: DIR/kubeconfig}}\n")
	pushSmallImage(s, "team/other", "other") // so that the namespace is not empty
	shown := s.kubectl("get", "is", "-n", "team", "other", "-o", "jsonpath={.status.dockerImageRepository} {.status.publicDockerImageRepository}")
	if want := "registry.example.com/team/other registry.example.com/team/other"; shown != want {
		t.Errorf("the repository is shown as %s, want %s", shown, want)
	}
	wait := func(condition string, change func()) {
		t.Helper()
		ended := make(chan string, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() {
			out, err := tryCommand(t, s.kubectlEnv(), "kubectl", "wait", "-n", "team", "imagestreamtag/app:latest", condition, "--timeout=60s")
			ended <- fmt.Sprint(out, err)
		}()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		change()
		if out := <-ended; !strings.Contains(out, "met") && !strings.Contains(out, "deleted") {
			t.Errorf("kubectl wait %s: %s", condition, out)
		}
	}
	wait("--for=create", func() { pushSmallImage(s, "team/app", "one") })
	_, next := smallImage("two")
	wait("--for=jsonpath={.image.metadata.name}="+digest.FromString(next).String(), func() { pushSmallImage(s, "team/app", "two") })
	wait("--for=delete", func() {
		if out := s.kubectl("delete", "istag", "-n", "team", "app:latest"); !strings.Contains(out, "deleted") {
			t.Errorf("kubectl delete: %s", out)
		}
	})
	if text := s.logText(); !strings.Contains(text, `"verb":"untag"`) && !strings.Contains(text, "verb=untag") {
		t.Error("the audit log lacks the untag")
	}
	if got := s.request(http.MethodGet, api+"/namespaces/team/imagestreams", "", nil); got.code != http.StatusOK || !strings.Contains(got.body, `"name":"app"`) {
		t.Errorf("the stream is gone with its last tag: %d %s", got.code, got.body)
	}
}
