package main

import (
	"fmt"

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
	}
	signing := catalog.SignatureOptions{
		Limits:              signatures.Limits{Content: s.ContentLimit, PerImage: s.PerImage},
		OwnRepositoriesOnly: !s.CrossRepository,
	}
	o.Context = fmt.Sprintf("%+v", signing)
	policies, err := policy.New(o)
	if err != nil {
		return catalog.SignatureOptions{}, nil, fmt.Errorf("imageapi.signatures: %w", err)
	}
	return signing, policies, nil
}
