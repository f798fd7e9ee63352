package main

import (
	"fmt"
	"log/slog"
	"strings"

	"tallyman/config"
	"tallyman/imageapi/catalog"
	"tallyman/signatures"
	"tallyman/signatures/policy"
)

// signatureOptions reads the signature policies that the configuration names.
func signatureOptions(c *config.Config) (catalog.SignatureOptions, *policy.Verifier, error) {
	s := &c.ImageAPI.Signatures
	o := policy.Options{Policies: s.Policies, PolicyFile: s.PolicyFile}
	if host := registryHost(c); host != "" {
		o.Hosts = []string{host}
	} else if namesHosts(s.Policies) {
		slog.Warn("configuration: a scope of imageapi.signatures.policies names a host; set http.host or imageapi.registryhost, " +
			"or the name that a pushing client uses decides whether it applies")
	}
	verifier, err := policy.New(o)
	if err != nil {
		return catalog.SignatureOptions{}, nil, fmt.Errorf("imageapi.signatures: %w", err)
	}
	return catalog.SignatureOptions{
		Limits:              signatures.Limits{Content: s.ContentLimit, PerImage: s.PerImage},
		OwnRepositoriesOnly: !s.CrossRepository,
	}, verifier, nil
}

func namesHosts(policies []signatures.Policy) bool {
	for _, p := range policies {
		for _, scope := range p.Scopes {
			first, _, _ := strings.Cut(scope, "/")
			if policy.IsHost(first) {
				return true
			}
		}
	}
	return false
}
