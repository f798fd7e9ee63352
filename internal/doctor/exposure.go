package doctor

import (
	"context"

	"tallyman/config"
	"tallyman/registry"
)

// checkExposure says what clients without credentials may do at each door.
func checkExposure(_ context.Context, r *report, o *Options) {
	c := o.Config.Registry
	here, encrypted := o.Config.IsLocal(), o.Config.HasCertificate()
	open := registry.AnonymousPull(c)
	where := "everybody who reaches " + c.HTTP.Addr
	if here {
		where = "everybody on this host"
	}
	auth := &o.Config.ImageAPI.Auth
	ruled := auth.RBACFile != "" || auth.AuthorizationWebhookFile != "" || auth.Delegation.Enabled
	switch {
	case open && here:
		r.ok("the registry: %s may push, pull and delete without credentials", where)
	case open:
		r.fail("auth: {htpasswd: {realm: registry, path: /etc/tallyman/htpasswd}}, or http.addr: 127.0.0.1:5000", "the registry: %s may push, pull and delete without credentials", where)
	default:
		r.ok("the registry: nobody may do anything without credentials")
	}
	switch {
	case ruled:
		r.ok("the API: requests without credentials may do whatever the rules give to system:anonymous")
	case open && here:
		r.ok("the API: %s may read Images without credentials", where)
	case open:
		r.warn("imageapi.auth.rbacfile, or auth", "the API: %s may read Images without credentials", where)
	default:
		r.ok("the API: nobody may read Images without credentials")
	}
	if !here && !encrypted && (!open || auth.KubeconfigFile != "" || auth.TokenFile != "") {
		r.warn("http.tls", "credentials are sent to %s, and can be read on the network: it is plain HTTP", c.HTTP.Addr)
	}
	if debug := c.HTTP.Debug.Addr; debug != "" && !config.IsLoopback(debug) {
		r.fail("http.debug.addr: 127.0.0.1:5001", "http.debug: everybody who reaches %s may read profiles and metrics, and fail the registry's health", debug)
	}
	if o.Config.UsesRedis() && c.HTTP.Secret == "" {
		r.warn("http.secret: the same random text for all replicas", "http.secret is not set: an upload that goes on at another replica fails")
	}
}
