package server

import (
	"fmt"
	"net/http"

	"k8s.io/apiserver/pkg/server/healthz"

	"tallyman/imageapi/rest"
)

// Remark is a readiness check that always passes. Its name, which it returns and /readyz?verbose
// prints, says something to operators.
type Remark func() string

var _ healthz.HealthChecker = Remark(nil)

// Name implements healthz.HealthChecker.
func (r Remark) Name() string { return r() }

// Check implements healthz.HealthChecker.
func (Remark) Check(*http.Request) error { return nil }

// indexProgress says how far the index of terms is filled. Lists are right without it, too.
func indexProgress(images *rest.Images) Remark {
	return func() string {
		state := images.IndexProgress()
		if state.Complete || state.Version == "" {
			return "index"
		}
		return fmt.Sprintf("index (%d objects filled)", state.Filled)
	}
}
