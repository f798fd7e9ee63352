package doctor

import (
	"context"
	"encoding/json"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const delegationKey = "imageapi.auth.delegation.kubeconfigfile"

// checkCluster asks the cluster whether it passes requests for the API on.
func checkCluster(ctx context.Context, r *report, o *Options) {
	if !o.Config.ImageAPI.Auth.Delegation.Enabled {
		return
	}
	configuration, err := o.Cluster()
	if err != nil {
		r.fail(delegationKey, "%v", err)
		return
	}
	configuration.Timeout = o.Timeout
	client, err := kubernetes.NewForConfig(configuration)
	if err != nil {
		r.fail(delegationKey, "%v", err)
		return
	}
	const name = "v1.image.openshift.io"
	body, err := client.RESTClient().Get().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/" + name).DoRaw(ctx)
	switch {
	case apierrors.IsForbidden(err):
		r.warn("let this user get the apiservice "+name, "the cluster does not tell whether it passes requests on: %v", err)
		return
	case apierrors.IsNotFound(err):
		r.fail("kubectl apply -k config/kubernetes/overlays/single, or helm install", "the cluster has no APIService %s: kubectl get images asks somebody else", name)
		return
	case err != nil:
		r.fail(delegationKey, "the cluster: %v", err)
		return
	}
	var service struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := json.Unmarshal(body, &service); err != nil {
		r.fail(delegationKey, "the cluster's APIService %s cannot be read: %v", name, err)
		return
	}
	for _, c := range service.Status.Conditions {
		if c.Type == "Available" && c.Status == metav1.ConditionTrue {
			r.ok("the cluster passes requests for the API on")
			return
		} else if c.Type == "Available" {
			r.fail("the APIService's Service, its endpoints and its caBundle", "the cluster does not pass requests on: %s: %s", c.Reason, c.Message)
			return
		}
	}
	r.fail("the log of kube-apiserver", "the cluster has not tried yet whether it can pass requests on")
}
