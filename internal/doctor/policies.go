package doctor

import (
	"context"
	"errors"
	"strings"

	"tallyman/registry/paths"

	"github.com/distribution/distribution/v3/registry/storage/driver"
)

func checkPolicies(ctx context.Context, r *report, o *Options) {
	s := &o.Config.ImageAPI.Signatures
	if err := o.Policies(); err != nil {
		r.fail("the key that the message names", "%v", err)
		return
	}
	if len(s.Policies) == 0 && s.PolicyFile == "" {
		r.ok("there are no signature policies: no signature is trusted")
		return
	}
	if o.Host == "" {
		r.warn("imageapi.registryhost: the name by which clients pull", "signature policies name images by the registry's host, which is not configured: signatures with an identity cannot match")
	}
	checkScopes(ctx, r, o)
	r.ok("%d signature policies, with their keys and certificates, are readable", len(s.Policies))
}

// checkScopes warns of scopes that cover no repository.
func checkScopes(ctx context.Context, r *report, o *Options) {
	if r.storage == nil {
		return // there is nothing, or the storage's own check says so
	}
	for i := range o.Config.ImageAPI.Signatures.Policies {
		policy := &o.Config.ImageAPI.Signatures.Policies[i]
		for _, scope := range policy.Scopes {
			if o.Host != "" {
				scope = strings.TrimPrefix(scope, o.Host+"/")
			}
			scope, _, _ = strings.Cut(strings.TrimSuffix(scope, "/*"), "@")
			if strings.ContainsAny(scope, "*:") || scope == "" {
				continue // every repository, or a tag
			}
			if _, err := r.storage.Stat(ctx, paths.Repositories+"/"+scope); errors.As(err, &driver.PathNotFoundError{}) {
				r.warn("imageapi.signatures.policies[].scopes", "policy %s: there is no repository %s", policy.Name, scope)
			}
		}
	}
}
