package e2e

import (
	"fmt"
	"strings"
	"testing"

	imagev1client "github.com/openshift/client-go/image/clientset/versioned/typed/image/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// testAdmission: the cluster's policies decide on what clients write to Images, and not on what
// the registry writes.
func (a *aggregated) testAdmission(t *testing.T, image string) {
	policy := a.t.TempDir() + "/policy.yaml"
	writeFile(t, policy, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: images}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - {apiGroups: [image.openshift.io], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [images]}
  validations:
    - expression: "!has(object.metadata.labels) || !('forbidden' in object.metadata.labels)"
      message: the label is forbidden by policy
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: images}
spec: {policyName: images, validationActions: [Deny]}
`)
	a.kubectl("apply", "-f", policy)
	eventually(t, "the policy holds", func() error {
		out, err := a.kubectlAs(a.kubeconfig, "label", "--overwrite", "image", image, "forbidden=1")
		if err == nil {
			_, _ = a.kubectlAs(a.kubeconfig, "label", "image", image, "forbidden-")
			return fmt.Errorf("labelled: %s", out)
		}
		if !strings.Contains(err.Error()+out, "the label is forbidden by policy") {
			t.Fatalf("%v: %s", err, out)
		}
		return nil
	})
	a.kubectl("label", "--overwrite", "image", image, "allowed=1")
	a.push("while-a-policy-holds")
	a.kubectl("delete", "-f", policy)
	eventually(t, "the policy does not hold any more", func() error {
		_, err := a.kubectlAs(a.kubeconfig, "label", "--overwrite", "image", image, "forbidden=1")
		return err
	})
	a.kubectl("label", "image", image, "forbidden-")
}

// testOwners: a user that changes the owners of an Image needs the permissions that kube-apiserver
// wants for its own resources.
func (a *aggregated) testOwners(t *testing.T, image string) {
	allow := func(name string, rules ...string) {
		a.kubectl(append([]string{"create", "clusterrole", name}, rules...)...)
		a.kubectl("create", "clusterrolebinding", name, "--clusterrole="+name, "--user=keeper")
	}
	owned := func(blocks bool) error {
		uid := a.kubectl("get", "namespace", "default", "-o", "jsonpath={.metadata.uid}")
		out, err := a.kubectlAs(a.kubeconfig, "patch", "image", image, "--as=keeper", "--type=merge",
			"-p", fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"default","uid":%q,"blockOwnerDeletion":%t}]}}`, uid, blocks))
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	holds := func(what string, check func() error) {
		t.Helper()
		eventually(t, what, check) // decisions of the cluster are kept for a while
	}
	allow("keeper-patches", "--verb=get,patch", "--resource=images.image.openshift.io")
	holds("a user without delete is refused", func() error {
		if err := owned(false); err == nil || !strings.Contains(err.Error(), "you can't delete") {
			return fmt.Errorf("%w", err)
		}
		return nil
	})
	allow("keeper-deletes", "--verb=delete", "--resource=images.image.openshift.io")
	holds("a user who may delete sets an owner", func() error { return owned(false) })
	refused(owned(true), "you can't set finalizers on")
	allow("keeper-finalizes", "--verb=update", "--resource=namespaces/finalizers")
	holds("a user who may finalize sets an owner that it blocks", func() error { return owned(true) })
	a.kubectl("patch", "image", image, "--type=merge", "-p", `{"metadata":{"ownerReferences":null}}`)
}

// testDeletion: an Image that is deleted with a policy waits for the garbage collector, which this
// cluster does not have.
func (a *aggregated) testDeletion(t *testing.T) {
	config, err := clientcmd.BuildConfigFromFlags("", a.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := imagev1client.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for policy, finalizer := range map[metav1.DeletionPropagation]string{
		metav1.DeletePropagationOrphan: "orphan", metav1.DeletePropagationForeground: "foregroundDeletion", metav1.DeletePropagationBackground: "",
	} {
		name := a.push("deleted-" + strings.ToLower(string(policy)))
		before, err := client.Images().Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		gone := func() bool { // the registry holds its manifest, so that another one takes its place
			t.Helper()
			image, err := client.Images().Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && image.UID != before.UID && image.Finalizers == nil && image.DeletionTimestamp == nil
		}
		if err := client.Images().Delete(t.Context(), name, metav1.DeleteOptions{PropagationPolicy: &policy}); err != nil {
			t.Fatal(err)
		}
		image, err := client.Images().Get(t.Context(), name, metav1.GetOptions{})
		if finalizer == "" {
			if !gone() {
				t.Errorf("%s: the Image is there: %v", policy, image.Finalizers)
			}
			continue
		}
		if err != nil || image.DeletionTimestamp == nil || len(image.Finalizers) != 1 || image.Finalizers[0] != finalizer {
			t.Errorf("%s: %v, finalizers %v", policy, err, image.Finalizers)
			continue
		}
		image.Finalizers = nil // as the garbage collector does
		if _, err := client.Images().Update(t.Context(), image, metav1.UpdateOptions{}); err != nil {
			t.Errorf("%s: %v", policy, err)
		}
		if !gone() {
			t.Errorf("%s: without finalizers the Image is there", policy)
		}
	}
}

// testGarbageCollection: kube-controller-manager's garbage collector deletes the dependents of an
// Image as its deletion says, and Images with their owners.
func (a *aggregated) testGarbageCollection(t *testing.T) {
	runPart(a.t, a.dir, tool(a.t, "garbage-collector"), a.kubeconfig)
	uid := func(kind, name string) string { return a.kubectl("get", kind, name, "-o", "jsonpath={.metadata.uid}") }
	owned := func(kind, name, ownerKind, ownerVersion, owner string) {
		t.Helper()
		a.kubectl("patch", kind, name, "--type=merge", "-p", fmt.Sprintf(
			`{"metadata":{"ownerReferences":[{"apiVersion":%q,"kind":%q,"name":%q,"uid":%q,"blockOwnerDeletion":true}]}}`, ownerVersion, ownerKind, owner, uid(ownerKind, owner)))
	}
	gone := func(kind, name, before string) { // another Image may have taken its place
		t.Helper()
		eventually(t, kind+" "+name+" is gone", func() error {
			out, err := a.kubectlAs(a.kubeconfig, "get", kind, name, "-o", "jsonpath={.metadata.uid} {.metadata.ownerReferences} {.metadata.finalizers}")
			if err == nil && strings.Contains(out, before) {
				return fmt.Errorf("it is there: %s", out)
			}
			return nil
		})
	}
	for _, cascade := range []string{"background", "foreground", "orphan"} {
		owner, image, settings := a.push("owner-"+cascade), a.push("owned-"+cascade), "owned-"+cascade
		a.kubectl("create", "configmap", settings)
		owned("image", image, "Image", "image.openshift.io/v1", owner)
		owned("configmap", settings, "Image", "image.openshift.io/v1", owner)
		ownerUID, imageUID, settingsUID := uid("image", owner), uid("image", image), uid("configmap", settings)
		a.kubectl("delete", "image", owner, "--cascade="+cascade, "--wait=false")
		gone("image", owner, ownerUID)
		if cascade != "orphan" {
			gone("image", image, imageUID)
			gone("configmap", settings, settingsUID)
			t.Logf("--cascade=%s: the Image is gone, and so are an Image and a ConfigMap that it owned", cascade)
			continue
		}
		for kind, name := range map[string]string{"image": image, "configmap": settings} {
			if got := a.kubectl("get", kind, name, "-o", "jsonpath={.metadata.ownerReferences}"); strings.TrimSpace(got) != "" {
				t.Errorf("%s %s has the owner that it was orphaned by: %s", kind, name, got)
			}
		}
		t.Logf("--cascade=%s: the Image is gone, and the Image and the ConfigMap that it owned have no owner", cascade)
	}
	image := a.push("owner-that-is-not-there")
	ownedByNobody := uid("image", image)
	a.kubectl("patch", "image", image, "--type=merge", "-p", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Namespace","name":"none","uid":"none"}]}}`)
	gone("image", image, ownedByNobody)
	t.Log("an Image whose owner never was is gone")
}
