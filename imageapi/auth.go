package imageapi

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"slices"

	imagev1 "github.com/openshift/api/image/v1"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// AdminToken authenticates bearers of token as an administrator.
func AdminToken(token string) authenticator.Request {
	admin := &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
	return bearertoken.New(authenticator.TokenFunc(func(_ context.Context, got string) (*authenticator.Response, bool, error) {
		if token == "" || subtle.ConstantTimeCompare([]byte(got), []byte(token)) != 1 {
			return nil, false, nil
		}
		return &authenticator.Response{User: admin}, true, nil
	}))
}

// RegistryUsers authenticates the registry's own users by HTTP basic auth. check
// returns false for a wrong name or password. Who may log in there may push and
// delete everything, and so may do everything here.
func RegistryUsers(check func(*http.Request) (name string, ok bool)) authenticator.Request {
	return authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		if _, _, basic := r.BasicAuth(); !basic {
			return nil, false, nil
		}
		name, ok := check(r)
		if !ok {
			return nil, false, errBadPassword
		}
		r.Header.Del("Authorization")
		return &authenticator.Response{User: &user.DefaultInfo{
			Name: name, Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated},
		}}, true, nil
	})
}

var errBadPassword = errors.New("invalid user name or password")

// authenticator is the union of the configured ones. Wrong credentials are 401,
// even where none would do.
func (s *Server) authenticator() authenticator.Request {
	var only []apiserver.AnonymousAuthCondition // nil: anonymous requests may ask for everything
	if !s.options.AnonymousRead {
		// Whoever probes this process has no credentials.
		only = []apiserver.AnonymousAuthCondition{{Path: "/livez"}, {Path: "/readyz"}, {Path: "/healthz"}}
	}
	return union.NewFailOnError(append(slices.Clone(s.options.Authenticators), anonymous.NewAuthenticator(only))...)
}

// authorizer lets administrators do everything, and everybody else read: the
// authenticator lets in only those who may.
func (s *Server) authorizer() authorizer.Authorizer { return authorizer.AuthorizerFunc(authorize) }

func authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	switch {
	case slices.Contains(a.GetUser().GetGroups(), user.SystemPrivilegedGroup):
		return authorizer.DecisionAllow, "", nil
	case !a.IsReadOnly():
		return authorizer.DecisionNoOpinion, "the API is read-only without credentials", nil
	case !a.IsResourceRequest(), a.GetAPIGroup() == imagev1.GroupVersion.Group:
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}
