package server

import (
	"fmt"
	"time"

	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	restclient "k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// admissionResync is the period by which the cluster's policies are read anew, besides the watch
// of them.
const admissionResync = 10 * time.Minute

// admit has a cluster's admission policies and webhooks, mutating and validating, decide on what
// clients write, and wants permissions for changes of owners, as kube-apiserver does for its own
// resources: kube-apiserver itself does not admit requests that it passes on to an aggregated server
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/). Writes by the
// registry do not come this way.
func admit(c *server.Config, cluster *restclient.Config) error {
	client, err := kubernetes.NewForConfig(cluster)
	if err != nil {
		return err
	}
	objects, err := dynamic.NewForConfig(cluster)
	if err != nil {
		return err
	}
	followed := informers.NewSharedInformerFactory(client, admissionResync)
	o := options.NewAdmissionOptions()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	o.Plugins.Register(ownerReferencesName, newOwnerReferences(mapper))
	o.RecommendedPluginOrder = append([]string{ownerReferencesName}, o.RecommendedPluginOrder...)
	o.DisablePlugins = []string{lifecycle.PluginName} // Images are in no namespace
	if err := o.ApplyTo(c, followed, client, objects, utilfeature.DefaultFeatureGate, c.EffectiveVersion); err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	return c.AddPostStartHook("follow-admission-policies", func(h server.PostStartHookContext) error {
		followed.Start(h.Done())
		return nil
	})
}
