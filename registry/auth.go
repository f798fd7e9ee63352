package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/health"
	"github.com/distribution/distribution/v3/registry/auth"
)

// AnonymousPull reports whether the registry lets everybody pull.
func AnonymousPull(c *configuration.Configuration) bool {
	kind := c.Auth.Type()
	return kind == "" || strings.EqualFold(kind, "none")
}

// PasswordCheck returns a check of HTTP basic credentials against the registry's
// htpasswd users; nil if it has none.
func PasswordCheck(c *configuration.Configuration) (func(*http.Request) (name string, ok bool), error) {
	if c.Auth.Type() != "htpasswd" {
		return nil, nil
	}
	controller, err := auth.GetAccessController(c.Auth.Type(), c.Auth.Parameters())
	if err != nil {
		return nil, fmt.Errorf("auth.htpasswd: %w", err)
	}
	return func(r *http.Request) (string, bool) {
		grant, err := controller.Authorized(r)
		if err != nil || grant == nil {
			return "", false
		}
		return grant.User.Name, true
	}, nil
}

// administratorAuth is the name under which distribution finds administrators.
const administratorAuth = "administrator"

// administrators lets a client with an administrator's token do everything, those who may delete Images delete,
// and asks another controller about all others. The token is the password of a login with any name, as
// `oc registry login`, `oc adm prune images` and `docker login` send it, or a bearer token.
type administrators struct {
	auth.AccessController
	isToken   func(token string) bool
	mayDelete func(r *http.Request, token string) (name string, ok bool)
}

// Authorized implements auth.AccessController.
func (a *administrators) Authorized(r *http.Request, access ...auth.Access) (*auth.Grant, error) {
	if token := tokenOf(r); token != "" && a.isToken != nil && a.isToken(token) {
		return grantAll("admin", access), nil
	}
	grant, err := a.AccessController.Authorized(r, access...)
	if err == nil || slices.ContainsFunc(access, func(a auth.Access) bool { return a.Action != "delete" }) {
		return grant, err
	}
	if name, ok := a.deleter(r); ok {
		return grantAll(name, access), nil
	}
	return grant, err
}

// deleter returns the user of a request by its token, "" if nobody knows it, and whether it may delete everything.
func (a *administrators) deleter(r *http.Request) (name string, ok bool) {
	token := tokenOf(r)
	if token == "" || a.mayDelete == nil {
		return "", false
	}
	return a.mayDelete(r, token)
}

// tokenOf returns the token of a request, "" for none.
func tokenOf(r *http.Request) string {
	_, token, basic := r.BasicAuth()
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); !basic && ok {
		token = bearer
	}
	return token
}

func grantAll(name string, access []auth.Access) *auth.Grant {
	grant := &auth.Grant{User: auth.UserInfo{Name: name}}
	for i := range access {
		grant.Resources = append(grant.Resources, access[i].Resource)
	}
	return grant
}

var registerAdministrators = sync.OnceValue(func() error { // distribution keeps it in a global
	return auth.Register(administratorAuth, func(options map[string]any) (auth.AccessController, error) {
		a, ok := options[administratorAuth].(*administrators)
		if !ok {
			return nil, fmt.Errorf("%s is not for configurations", administratorAuth)
		}
		return a, nil
	})
})

// addAdministrators has the registry's own auth, if it has one, let administrators in, and those who may delete,
// as a knows them.
func addAdministrators(c *configuration.Configuration, a administrators) error {
	if a.isToken == nil && a.mayDelete == nil || AnonymousPull(c) {
		return nil
	}
	if err := registerAdministrators(); err != nil {
		return err
	}
	own, err := auth.GetAccessController(c.Auth.Type(), c.Auth.Parameters())
	if err != nil {
		return fmt.Errorf("auth.%s: %w", c.Auth.Type(), err)
	}
	a.AccessController = own
	c.Auth = configuration.Auth{administratorAuth: configuration.Parameters{administratorAuth: &a}}
	return nil
}

// Healthy returns the failures of distribution's health checks, which the configuration sets
// up.
func Healthy(ctx context.Context) error {
	var errs []error
	for name, fault := range health.CheckStatus(ctx) {
		errs = append(errs, fmt.Errorf("%s: %s", name, fault))
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}
