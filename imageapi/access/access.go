// Package access authenticates and authorizes requests to the API.
//
// The authenticators are k8s.io/apiserver's own: client certificates, bearer tokens
// from a file, JWTs by an AuthenticationConfiguration, TokenReview, front-proxy
// headers, and the registry's own users by basic auth. Authorization is Kubernetes'
// RBAC, from a file of ordinary roles and bindings, and
// SubjectAccessReview. A cluster can be asked for both, as by any aggregated API server.
//
// # Guarantees
//
// Access is denied unless a rule allows it. Wrong credentials are refused even where none are
// needed. Files are reloaded when they change. An invalid file is reported and the previous
// version stays in force; at start it is an error that names the key.
package access

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	imagev1 "github.com/openshift/api/image/v1"
	"golang.org/x/time/rate"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authorizerunion "k8s.io/apiserver/pkg/authorization/union"
	authorizerwebhook "k8s.io/apiserver/plugin/pkg/authorizer/webhook"

	"tallyman/internal/crash"
)

// logInterval keeps a failure that lasts from filling the log.
const logInterval = 10 * time.Second

// RegistryUsers is the group of the registry's own htpasswd users.
const RegistryUsers = "tallyman:registry-users"

// Options configures New. Its fields are named after the keys of the configuration,
// which errors name.
type Options struct {
	// AdminTokens are bearer tokens of administrators.
	AdminTokens []string
	// PasswordCheck, if set, checks HTTP basic credentials of the registry's users.
	PasswordCheck func(*http.Request) (name string, ok bool)
	// AnonymousRead lets everybody read, unless RBACFile, AuthorizationWebhookFile or
	// Delegation is set.
	AnonymousRead bool

	// ClientCAFile is a bundle of authorities for client certificates: the common name is the
	// user, organizations are groups.
	ClientCAFile string
	// TokenAuthFile has a line for each token: token,user,uid,"group,…".
	TokenAuthFile string
	// AuthenticationConfigFile is an AuthenticationConfiguration of
	// apiserver.config.k8s.io, of which the JWT authenticators are honoured.
	AuthenticationConfigFile string
	// AuthenticationWebhookFile is the kubeconfig of a server that answers TokenReviews.
	AuthenticationWebhookFile string
	// RequestHeader honours the headers of a front proxy, such as the aggregator of
	// kube-apiserver.
	RequestHeader RequestHeader
	// Delegation asks a cluster for both, besides all others.
	Delegation Delegation

	// RBACFile has ClusterRoles, ClusterRoleBindings, Roles and RoleBindings.
	RBACFile string
	// AuthorizationWebhookFile is the kubeconfig of a server that answers
	// SubjectAccessReviews.
	AuthorizationWebhookFile string
}

// RequestHeader names the headers in which a front proxy sends the user. They are honoured
// only with a client certificate that ClientCAFile has issued.
type RequestHeader struct {
	ClientCAFile        string
	AllowedNames        []string
	UsernameHeaders     []string
	UIDHeaders          []string
	GroupHeaders        []string
	ExtraHeaderPrefixes []string
}

// Access authenticates and authorizes requests.
type Access struct {
	// Authenticator never fails for want of credentials: then the user is
	// system:anonymous.
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	// Rules lists the permissions of a user.
	Rules authorizer.RuleResolver
	// ServesAnonymous reports whether requests without credentials have any permission.
	ServesAnonymous func() bool
	// Challenges are the schemes for WWW-Authenticate.
	Challenges []string
	// IsAdminToken reports whether a token is one of Options.AdminTokens; nil if there are none.
	IsAdminToken func(token string) bool
	// HasUsers is set if any authenticator is configured.
	HasUsers bool

	reloads []func(context.Context)
}

// New reads the files and sets everything up. ctx ends the background work.
func New(ctx context.Context, o Options) (*Access, error) {
	a := &Access{}
	var cluster *delegate
	if o.Delegation.Enabled {
		var err error
		if cluster, err = newDelegate(ctx, &o.Delegation); err != nil {
			return nil, fmt.Errorf("delegation: %w", err)
		}
	}
	if err := a.authentication(ctx, &o, cluster); err != nil {
		return nil, err
	}
	rbac, err := a.rbac(&o)
	if err != nil {
		return nil, err
	}
	a.ServesAnonymous = rbac.servesAnonymous
	authorizers := []authorizerunion.NamedAuthorizer{{AuthorizerName: "rbac", Authorizer: authorizer.AuthorizerFunc(rbac.Authorize)}}
	resolvers := []authorizer.RuleResolver{rbac}
	also := func(name string, webhook *authorizerwebhook.WebhookAuthorizer) {
		authorizers = append(authorizers, authorizerunion.NamedAuthorizer{AuthorizerName: name, Authorizer: &redactingAuthorizer{Authorizer: webhook, name: name, log: rate.Sometimes{Interval: logInterval}}})
		resolvers = append(resolvers, webhook)
	}
	if o.AuthorizationWebhookFile != "" {
		webhook, err := newAuthorizationWebhook(o.AuthorizationWebhookFile)
		if err != nil {
			return nil, fmt.Errorf("authorizationwebhookfile: %w", err)
		}
		also("webhook", webhook)
	}
	if cluster != nil {
		also("cluster", cluster.reviews)
	}
	a.Rules = authorizerunion.NewRuleResolvers(resolvers...)
	a.Authorizer, err = authorizerunion.New(authorizers...)
	return a, err
}

// MayDeleteImages returns the name of the user with a bearer token, "" if nobody has it, and whether that user may
// delete all Images.
func (a *Access) MayDeleteImages(r *http.Request, token string) (name string, ok bool) {
	asked := (&http.Request{Method: r.Method, URL: r.URL, RemoteAddr: r.RemoteAddr, Header: http.Header{"Authorization": {"Bearer " + token}}}).WithContext(r.Context())
	known, ok, err := a.Authenticator.AuthenticateRequest(asked)
	if err != nil || !ok {
		return "", false
	}
	decision, _, err := a.Authorizer.Authorize(r.Context(), authorizer.AttributesRecord{
		User: known.User, Verb: "delete", APIGroup: imagev1.GroupName, APIVersion: imagev1.GroupVersion.Version, Resource: "images", ResourceRequest: true,
	})
	return known.User.GetName(), err == nil && decision == authorizer.DecisionAllow
}

// redactingAuthorizer keeps from clients how a server is reached that is asked, and why that fails.
type redactingAuthorizer struct {
	authorizer.Authorizer
	name string
	log  rate.Sometimes
}

// Authorize implements authorizer.Authorizer.
func (d *redactingAuthorizer) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	decision, reason, err := d.Authorizer.Authorize(ctx, a)
	if err != nil {
		d.log.Do(func() { slog.Error("authorizer failed", "authorizer", d.name, "err", err) })
		err = fmt.Errorf("the authorizer %q does not answer", d.name)
	}
	return decision, reason, err
}

// Run reads files again when they change, until ctx ends.
func (a *Access) Run(ctx context.Context) {
	const interval = 2 * time.Second
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, reload := range a.reloads {
				// A panic is logged and counted; the previous version stays in force.
				_ = crash.Guard("access file reload", func() error {
					reload(ctx)
					return nil
				})
			}
		}
	}
}

// rbac makes the authorizer of the ready-made roles and the file's.
func (a *Access) rbac(o *Options) (*rbacAuthorizer, error) {
	defaults := []defaultBinding{{user.SystemPrivilegedGroup, "cluster-admin"}, {user.AllAuthenticated, "system:basic-user"}}
	for _, group := range []string{user.AllAuthenticated, user.AllUnauthenticated} {
		defaults = append(defaults, defaultBinding{group, "system:public-info-viewer"})
	}
	defaults = append(defaults, defaultBinding{user.AllAuthenticated, "system:discovery"})
	if o.AnonymousRead {
		defaults = append(defaults, defaultBinding{user.AllUnauthenticated, "system:discovery"})
	}
	if o.RBACFile == "" && o.AuthorizationWebhookFile == "" && !o.Delegation.Enabled {
		defaults = append(defaults, defaultBinding{RegistryUsers, "system:image-reader"})
		if o.AnonymousRead {
			defaults = append(defaults, defaultBinding{user.AllAuthenticated, "system:image-reader"}, defaultBinding{user.AllUnauthenticated, "system:image-reader"})
		}
	}
	r, err := newRBAC(o.RBACFile, defaults)
	if err != nil {
		return nil, fmt.Errorf("rbacfile: %w", err)
	}
	if o.RBACFile != "" {
		a.reloads = append(a.reloads, reloading("rbacfile", o.RBACFile, r.load))
	}
	return r, nil
}
