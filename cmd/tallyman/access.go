package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apiserver/pkg/server/options"

	"tallyman/config"
	"tallyman/imageapi/access"
	"tallyman/registry"
)

// newAccess sets up authentication and authorization of the API, and the certificate that
// kubectl needs before it sends a token.
func newAccess(cmd *cobra.Command, c *config.Config) (*access.Access, *tls.Certificate, error) {
	auth := &c.ImageAPI.Auth
	o := access.Options{
		AnonymousRead:             registry.AnonymousPull(c.Registry),
		ClientCAFile:              auth.ClientCAFile,
		TokenAuthFile:             auth.TokenAuthFile,
		AuthenticationConfigFile:  auth.AuthenticationConfigFile,
		AuthenticationWebhookFile: auth.AuthenticationWebhookFile,
		RBACFile:                  auth.RBACFile,
		AuthorizationWebhookFile:  auth.AuthorizationWebhookFile,
		RequestHeader:             access.RequestHeader(auth.RequestHeader),
		Delegation:                access.Delegation(auth.Delegation),
	}
	var certificate *tls.Certificate
	if file := auth.KubeconfigFile; file != "" {
		admin, err := access.PrepareKubeconfig(file, externalAddress(c), c.Registry.HTTP.TLS.Certificate)
		if err != nil {
			return nil, nil, fmt.Errorf("imageapi.auth.kubeconfigfile: %w", err)
		}
		o.AdminTokens, certificate = append(o.AdminTokens, admin.Token), admin.Certificate
		slog.Info("administrator's kubeconfig", "path", file)
	}
	if file := auth.TokenFile; file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, fmt.Errorf("imageapi.auth.tokenfile: %w", err)
		}
		token := strings.TrimSpace(string(content))
		if token == "" {
			return nil, nil, fmt.Errorf("imageapi.auth.tokenfile: %s is empty: want a token", file)
		}
		o.AdminTokens = append(o.AdminTokens, token)
	}
	var err error
	if o.PasswordCheck, err = registry.PasswordCheck(c.Registry); err != nil {
		return nil, nil, err
	}
	a, err := access.New(cmd.Context(), o)
	if err != nil {
		return nil, nil, fmt.Errorf("imageapi.auth.%w", err)
	}
	if a.HasUsers {
		warnOfPlainHTTP(c)
	}
	return a, certificate, nil
}

// warnOfPlainHTTP warns of credentials on a network where anybody can read them.
func warnOfPlainHTTP(c *config.Config) {
	if !c.HasCertificate() && !c.IsLocal() {
		slog.Warn("credentials are configured, and plain HTTP is served on an address that is not loopback: they can be read on the network; set http.tls",
			"addr", c.Registry.HTTP.Addr)
	}
}

// auditOptions are kube-apiserver's, nil if nothing is to be recorded.
func auditOptions(c *config.Config) *options.AuditOptions {
	audit := &c.ImageAPI.Audit
	if audit.LogPath == "" {
		return nil
	}
	o := options.NewAuditOptions()
	o.PolicyFile, o.LogOptions.Path = audit.PolicyFile, audit.LogPath
	o.LogOptions.MaxAge, o.LogOptions.MaxBackups, o.LogOptions.MaxSize = audit.LogMaxAge, audit.LogMaxBackups, audit.LogMaxSize
	return o
}
