package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"tallyman/config"
	"tallyman/imageapi"
	"tallyman/signatures"
	"tallyman/signatures/policy"
)

// policyPoll is how often the files of signature policies are looked at.
const policyPoll = 2 * time.Second

// signatureOptions reads the signature policies that the configuration names.
func signatureOptions(c *config.Config) (imageapi.SignatureOptions, *policy.Verifier, error) {
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
		return imageapi.SignatureOptions{}, nil, fmt.Errorf("imageapi.signatures: %w", err)
	}
	return imageapi.SignatureOptions{
		Verifier:            verifier,
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

// keepVerifying verifies all signatures at start, when a policy has changed, and by
// period. stop ends it.
func keepVerifying(ctx context.Context, c *config.Config, verifier *policy.Verifier, writer *imageapi.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	changed <- struct{}{} // trust may have changed while no process ran
	kick := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	var background sync.WaitGroup
	background.Go(func() { verifier.Watch(ctx, policyPoll, kick) })
	background.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			case <-time.After(c.ImageAPI.Signatures.VerifyInterval):
				verifier.ClearCache()
			}
			verifyAll(ctx, writer)
		}
	})
	return func() {
		cancel()
		background.Wait()
	}
}

// verifyAll goes over all signatures, and again from the beginning if the store goes
// away.
func verifyAll(ctx context.Context, writer *imageapi.Writer) {
	const retry = 5 * time.Second
	for {
		start := time.Now()
		signed, err := writer.VerifyAll(ctx)
		switch {
		case err == nil && signed > 0:
			slog.Info("signature verification complete", "images", signed, "took", time.Since(start).Round(time.Millisecond).String())
			return
		case err == nil || errors.Is(err, context.Canceled):
			return
		}
		slog.Warn("signature verification of all images failed, retrying", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}
