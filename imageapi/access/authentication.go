package access

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/options"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
	authorizerwebhook "k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
)

// tokenCacheTTL is how long the answer about a token is remembered, as upstream.
const tokenCacheTTL = 10 * time.Second

// errBadCredentials is all that is said of credentials that are wrong.
var errBadCredentials = errors.New("invalid credentials")

// authentication makes the union of all authenticators, in kube-apiserver's order.
func (a *Access) authentication(ctx context.Context, o *Options, cluster *delegate) error {
	var requests []authenticator.Request
	if o.RequestHeader.ClientCAFile != "" {
		proxy, err := a.frontProxy(&o.RequestHeader)
		if err != nil {
			return err
		}
		requests = append(requests, proxy)
	}
	if o.ClientCAFile != "" {
		ca, err := a.clientCA("clientcafile", o.ClientCAFile)
		if err != nil {
			return err
		}
		requests = append(requests, x509.NewDynamic(ca.VerifyOptions, x509.CommonNameUserConversion))
	}
	tokens, err := a.tokens(ctx, o)
	if err != nil {
		return err
	}
	if cluster != nil {
		requests = append(requests, cluster.requests...)
		tokens = append(tokens, cache.New(cluster.tokens, false, tokenCacheTTL, tokenCacheTTL))
	}
	if len(tokens) > 0 {
		a.Challenges = append(a.Challenges, `Bearer realm="tallyman"`)
		all := tokenunion.New(tokens...)
		requests = append(requests, bearertoken.New(all))
	}
	if o.PasswordCheck != nil {
		a.Challenges = append(a.Challenges, `Basic realm="tallyman"`)
		requests = append(requests, registryUsers(o.PasswordCheck))
	}
	a.HasUsers = len(requests) > 0
	// Wrong credentials are 401 even where none would do.
	known := group.NewAuthenticatedGroupAdder(union.New(requests...))
	a.Authenticator = union.NewFailOnError(known, rejectUnknown{}, anonymous.NewAuthenticator(nil))
	return nil
}

// rejectUnknown refuses credentials that no authenticator has known.
type rejectUnknown struct{}

// AuthenticateRequest implements authenticator.Request.
func (rejectUnknown) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.Header.Get("Authorization") != "" {
		return nil, false, errBadCredentials
	}
	return nil, false, nil
}

func (a *Access) clientCA(key, path string) (*dynamiccertificates.DynamicFileCAContent, error) {
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile(key, path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	a.reloads = append(a.reloads, reporting(key, path, ca.RunOnce))
	return ca, nil
}

// frontProxy believes the headers of a proxy with the right certificate.
func (a *Access) frontProxy(o *RequestHeader) (authenticator.Request, error) {
	ca, err := a.clientCA("requestheader.clientcafile", o.ClientCAFile)
	if err != nil {
		return nil, err
	}
	return headerrequest.NewDynamicVerifyOptionsSecure(ca.VerifyOptions,
		headerrequest.StaticStringSlice(o.AllowedNames),
		headerrequest.StaticStringSlice(o.UsernameHeaders),
		headerrequest.StaticStringSlice(o.UIDHeaders),
		headerrequest.StaticStringSlice(o.GroupHeaders),
		headerrequest.StaticStringSlice(o.ExtraHeaderPrefixes)), nil
}

// tokens makes the authenticators of bearer tokens.
func (a *Access) tokens(ctx context.Context, o *Options) ([]authenticator.Token, error) {
	var all []authenticator.Token
	if len(o.AdminTokens) > 0 {
		a.IsAdminToken = anyOf(o.AdminTokens)
		all = append(all, adminTokens(a.IsAdminToken))
	}
	if o.TokenAuthFile != "" {
		tokens := &tokenFile{path: o.TokenAuthFile}
		if err := tokens.load(nil); err != nil {
			return nil, fmt.Errorf("tokenauthfile: %w", err)
		}
		a.reloads = append(a.reloads, reloading("tokenauthfile", o.TokenAuthFile, tokens.load))
		all = append(all, tokens)
	}
	if o.AuthenticationConfigFile != "" {
		jwt, err := newJWT(ctx, o.AuthenticationConfigFile)
		if err != nil {
			return nil, fmt.Errorf("authenticationconfigfile: %w", err)
		}
		a.reloads = append(a.reloads, reloading("authenticationconfigfile", o.AuthenticationConfigFile, jwt.load))
		all = append(all, cache.New(jwt, false, tokenCacheTTL, tokenCacheTTL))
	}
	if o.AuthenticationWebhookFile != "" {
		review, err := newAuthenticationWebhook(o.AuthenticationWebhookFile)
		if err != nil {
			return nil, fmt.Errorf("authenticationwebhookfile: %w", err)
		}
		all = append(all, cache.New(review, false, tokenCacheTTL, tokenCacheTTL))
	}
	return all, nil
}

// anyOf reports whether a token is one of some, in a time that does not tell how much of it is right.
func anyOf(tokens []string) func(string) bool {
	return func(got string) bool {
		return slices.ContainsFunc(tokens, func(token string) bool {
			return token != "" && subtle.ConstantTimeCompare([]byte(got), []byte(token)) == 1
		})
	}
}

// adminTokens authenticates the bearers of administrators' tokens.
func adminTokens(isToken func(string) bool) authenticator.Token {
	admin := &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}
	return authenticator.TokenFunc(func(_ context.Context, got string) (*authenticator.Response, bool, error) {
		if !isToken(got) {
			return nil, false, nil
		}
		return &authenticator.Response{User: admin}, true, nil
	})
}

// tokenFile is upstream's authenticator of tokens in a file, read again.
type tokenFile struct {
	path    string
	current atomic.Pointer[tokenfile.TokenAuthenticator]
}

// load reads the file, whose content upstream takes from nobody else.
func (f *tokenFile) load([]byte) error {
	tokens, err := tokenfile.NewCSV(f.path)
	if err == nil {
		f.current.Store(tokens)
	}
	return err
}

// AuthenticateToken implements authenticator.Token.
func (f *tokenFile) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	return f.current.Load().AuthenticateToken(ctx, token)
}

// registryUsers authenticates the registry's own users by HTTP basic auth.
func registryUsers(check func(*http.Request) (name string, ok bool)) authenticator.Request {
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if _, _, basic := r.BasicAuth(); !basic {
			return nil, false, nil
		}
		name, ok := check(r)
		if !ok {
			return nil, false, errBadCredentials
		}
		r.Header.Del("Authorization")
		return &authenticator.Response{User: &user.DefaultInfo{Name: name, Groups: []string{RegistryUsers}}}, true, nil
	})
}

func webhookBackoff() wait.Backoff { return *options.DefaultAuthWebhookRetryBackoff() }

func newAuthenticationWebhook(path string) (authenticator.Token, error) {
	config, err := webhookutil.LoadKubeconfig(path, nil)
	if err != nil {
		return nil, err
	}
	return webhook.New(config, "v1", nil, webhookBackoff())
}

// newAuthorizationWebhook remembers answers as long as kube-apiserver does.
func newAuthorizationWebhook(path string) (*authorizerwebhook.WebhookAuthorizer, error) {
	const allowed, denied = 5 * time.Minute, 30 * time.Second
	config, err := webhookutil.LoadKubeconfig(path, nil)
	if err != nil {
		return nil, err
	}
	return authorizerwebhook.New(config, "v1", allowed, denied, webhookBackoff(), authorizer.DecisionDeny, nil, "tallyman",
		metrics.NoopAuthorizerMetrics{}, authorizationcel.NewDefaultCompiler())
}
