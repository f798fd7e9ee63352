package access

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	authorizerwebhook "k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// The ConfigMap in which kube-apiserver publishes its authorities and the front proxy's
// headers, the role that may read it, and its keys. Reference:
// k8s.io/apiserver/pkg/server/options/authentication.go.
const (
	authenticationNamespace = metav1.NamespaceSystem
	authenticationConfigMap = "extension-apiserver-authentication"
	authenticationRole      = "extension-apiserver-authentication-reader"
)

const (
	// delegatedTTL is how long answers of the cluster are remembered, so also how long
	// a permission that is taken away may last; as for other aggregated API servers.
	delegatedTTL = 10 * time.Second
	// delegatedTimeout bounds one question to the cluster.
	delegatedTimeout = 10 * time.Second
	// delegatedQPS and delegatedBurst bound how many are asked.
	delegatedQPS, delegatedBurst = 200, 400
)

// Delegation lets a Kubernetes cluster authenticate and authorize requests, as for an
// aggregated API server: client certificates and front-proxy headers by the ConfigMap
// extension-apiserver-authentication in kube-system, bearer tokens by TokenReview, permissions
// by SubjectAccessReview.
type Delegation struct {
	Enabled bool
	// KubeconfigFile is how the cluster is reached; "" is as a pod in it does.
	KubeconfigFile string
	// Admission and GarbageCollector are for the API server: the cluster's admission decides on
	// writes, and its garbage collector sees Images.
	Admission, GarbageCollector bool
}

// delegate holds the authenticator and the authorizer of a cluster. The registry starts
// without the cluster: until the cluster answers, its users are unknown and have no
// permissions.
type delegate struct {
	requests []authenticator.Request
	tokens   authenticator.Token
	reviews  *authorizerwebhook.WebhookAuthorizer
}

func newDelegate(ctx context.Context, o *Delegation) (*delegate, error) {
	client, err := o.client()
	if err != nil {
		return nil, err
	}
	d := &delegate{}
	if err := d.followConfigMap(ctx, client); err != nil {
		return nil, err
	}
	none := webhook.AuthenticatorMetrics{
		RecordRequestTotal:   func(context.Context, string) {},
		RecordRequestLatency: func(context.Context, string, float64) {},
	}
	if d.tokens, err = webhook.NewFromInterface(client.AuthenticationV1(), nil, webhookBackoff(), delegatedTimeout, none); err != nil {
		return nil, err
	}
	d.reviews, err = authorizerwebhook.NewFromInterface(client.AuthorizationV1(), delegatedTTL, delegatedTTL, webhookBackoff(),
		authorizer.DecisionNoOpinion, metrics.NoopAuthorizerMetrics{}, authorizationcel.NewDefaultCompiler())
	return d, err
}

func (o *Delegation) client() (kubernetes.Interface, error) {
	c, err := o.ClientConfig()
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(c)
}

// ClientConfig returns the way to the cluster.
func (o *Delegation) ClientConfig() (*rest.Config, error) {
	var c *rest.Config
	var err error
	if o.KubeconfigFile != "" {
		c, err = clientcmd.BuildConfigFromFlags("", o.KubeconfigFile)
	} else if c, err = rest.InClusterConfig(); err != nil {
		err = fmt.Errorf("%w: want kubeconfigfile outside of a cluster", err)
	}
	if err != nil {
		return nil, err
	}
	c.QPS, c.Burst, c.Timeout = delegatedQPS, delegatedBurst, delegatedTimeout
	return c, nil
}

// followConfigMap authenticates clients by the current content of the ConfigMap.
func (d *delegate) followConfigMap(ctx context.Context, client kubernetes.Interface) error {
	authorities := func(purpose, key string) (*dynamiccertificates.ConfigMapCAController, error) {
		return dynamiccertificates.NewDynamicCAFromConfigMapController(purpose, authenticationNamespace, authenticationConfigMap, key, client)
	}
	clients, err := authorities("client-ca", "client-ca-file")
	if err != nil {
		return err
	}
	proxies, err := authorities("front-proxy-ca", "requestheader-client-ca-file")
	if err != nil {
		return err
	}
	headers := headerrequest.NewRequestHeaderAuthRequestController(authenticationConfigMap, authenticationNamespace, client,
		"requestheader-username-headers", "requestheader-uid-headers", "requestheader-group-headers",
		"requestheader-extra-headers-prefix", "requestheader-allowed-names")
	for _, follower := range []dynamiccertificates.ControllerRunner{clients, proxies, headers} {
		if err := follower.RunOnce(ctx); err != nil {
			slog.Warn("cluster authentication not loaded, retrying; its users are unknown until then. It needs the role "+authenticationRole+" in "+authenticationNamespace,
				"configmap", authenticationNamespace+"/"+authenticationConfigMap, "err", err)
			break // the others would say the same
		}
	}
	for _, follower := range []dynamiccertificates.ControllerRunner{clients, proxies, headers} {
		go follower.Run(ctx, 1)
	}
	d.requests = []authenticator.Request{
		headerrequest.NewDynamicVerifyOptionsSecure(proxies.VerifyOptions,
			headerrequest.StringSliceProviderFunc(headers.AllowedClientNames),
			headerrequest.StringSliceProviderFunc(headers.UsernameHeaders),
			headerrequest.StringSliceProviderFunc(headers.UIDHeaders),
			headerrequest.StringSliceProviderFunc(headers.GroupHeaders),
			headerrequest.StringSliceProviderFunc(headers.ExtraHeaderPrefixes)),
		x509.NewDynamic(clients.VerifyOptions, x509.CommonNameUserConversion),
	}
	return nil
}
