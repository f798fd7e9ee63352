// Package server assembles the API server: the image.openshift.io/v1 Kubernetes API of Image
// objects, served by k8s.io/apiserver's own handlers.
//
// # Guarantees
//
// Kubernetes' semantics are upstream's: verbs, patches, server-side apply, field
// validation, discovery and OpenAPI come from k8s.io/apiserver unchanged. GET,
// LIST and WATCH in JSON are answered with the bytes that were stored.
//
// # Caveats
//
// The process may hold one Server: k8s.io/apiserver keeps metrics and feature
// gates in globals.
package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/features"
	k8srest "k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/server/options"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	restclient "k8s.io/client-go/rest"

	"tallyman/imageapi"
	"tallyman/imageapi/access"
	"tallyman/imageapi/openapi"
	"tallyman/imageapi/rest"
	"tallyman/imageapi/streamrest"
)

// Options configures New.
type Options struct {
	// Images is the images resource. Required. The Server closes it.
	Images *rest.Images
	// Signatures is the imagesignatures resource. Required.
	Signatures *rest.ImageSignatures
	// Streams are the namespaced resources. Required. The Server closes them.
	Streams *streamrest.Resources
	// ExternalAddress is the host:port that the API tells clients. Required.
	ExternalAddress string
	// Access authenticates and authorizes requests. Required.
	Access *access.Access
	// Audit records requests to the API; nil records none.
	Audit *options.AuditOptions
	// Limits bounds concurrent requests.
	Limits Limits
	// ReadyChecks are asked by /readyz. It does not ask the store, without which the registry
	// serves on; /readyz/store does.
	ReadyChecks []healthz.HealthChecker
	// AccessLog logs a line for each request.
	AccessLog bool
	// Cluster is the Kubernetes cluster whose admission decides on what clients write; nil for
	// none.
	Cluster *restclient.Config
	// ShutdownDelay is how long requests are taken after NotReady.
	ShutdownDelay time.Duration
}

// Validate returns an error if a required field of o is missing.
func (o *Options) Validate() error {
	switch {
	case o.Images == nil || o.Signatures == nil || o.Streams == nil:
		return errors.New("server: Images, Signatures and Streams are required")
	case o.ExternalAddress == "":
		return errors.New("server: ExternalAddress is required")
	case o.Access == nil:
		return errors.New("server: Access is required")
	}
	return nil
}

// Server is the Image API. Create it with New, mount it with Handler.
type Server struct {
	options Options
	handler http.Handler
	cancel  context.CancelFunc
}

// New assembles the API server.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	metrics.Register()
	s := &Server{options: o}
	generic, err := s.newGenericServer()
	if err != nil {
		return nil, fmt.Errorf("image API: %w", err)
	}
	prepared := generic.PrepareRun()
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go o.Images.MaintainIndex(ctx)
	go o.Streams.Run(ctx)
	go func() {
		// There is no listener to run: this runs the start-up hooks and, when
		// the context ends, fails /readyz. It does not return before all
		// requests have, which Drain does not wait for.
		_ = prepared.RunWithContext(ctx)
	}()
	s.handler = prepared.Handler
	return s, nil
}

// NotReady fails /readyz, so that load balancers turn away. All goes on being
// served for Options.ShutdownDelay.
func (s *Server) NotReady() { s.cancel() }

// Drain is NotReady and ends all watches.
func (s *Server) Drain() {
	s.NotReady()
	s.options.Images.Close()
	s.options.Streams.Close()
}

func (s *Server) newGenericServer() (*server.GenericAPIServer, error) {
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(map[string]bool{string(features.CBORServingAndStorage): true}); err != nil {
		return nil, err
	}
	c := server.NewConfig(imageapi.Codecs)
	c.ExternalAddress = s.options.ExternalAddress
	c.LoopbackClientConfig = &restclient.Config{Host: s.options.ExternalAddress}
	c.EffectiveVersion = newEffectiveVersion()
	c.ShutdownDelayDuration = s.options.ShutdownDelay
	c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight = s.options.Limits.Requests, s.options.Limits.MutatingRequests
	c.EnableProfiling = false
	c.EnableMetrics = false // on the debug port, with the registry's
	c.BuildHandlerChainFunc = s.buildHandlerChain
	c.Authentication.Authenticator = s.options.Access.Authenticator
	c.Authorization.Authorizer = s.options.Access.Authorizer
	c.RuleResolver = s.options.Access.Rules
	if err := s.options.Audit.ApplyTo(c); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	if s.options.Cluster != nil {
		if err := admit(c, s.options.Cluster); err != nil {
			return nil, err
		}
	}
	c.ReadyzChecks = append(c.ReadyzChecks, indexProgress(s.options.Images))
	c.ReadyzChecks = append(c.ReadyzChecks, s.options.ReadyChecks...)
	openapi.Configure(c)
	generic, err := c.Complete(nil).New("tallyman", server.NewEmptyDelegate())
	if err != nil {
		return nil, err
	}
	installClientPaths(generic)
	healthz.InstallPathHandler(generic.Handler.NonGoRestfulMux, "/readyz/store", healthz.NamedCheck("store", func(*http.Request) error {
		return s.options.Images.ReadinessCheck()
	}))
	resources := s.options.Streams.Storage()
	resources[imageapi.Images.Resource], resources[imageapi.ImageSignatures.Resource] = s.options.Images, s.options.Signatures
	return generic, generic.InstallAPIGroups(
		apiGroup(imagev1.GroupVersion, resources),
		apiGroup(authorizationv1.SchemeGroupVersion, rest.AuthorizationReviews(s.options.Access.Authorizer, s.options.Access.Rules)),
		apiGroup(authenticationv1.SchemeGroupVersion, rest.AuthenticationReviews()),
	)
}

func apiGroup(version schema.GroupVersion, resources map[string]k8srest.Storage) *server.APIGroupInfo {
	group := server.NewDefaultAPIGroupInfo(version.Group, imageapi.Scheme, imageapi.ParameterCodec, imageapi.Codecs)
	group.PrioritizedVersions = imageapi.Scheme.PrioritizedVersionsForGroup(version.Group)
	group.VersionedResourcesStorageMap[version.Version] = resources
	return &group
}
