package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

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
