// Package registry is the distribution side of tallyman: the CNCF distribution registry,
// unchanged, with a registry middleware that records pushes, tags and deletions in the Image
// API. repository.go has the middleware, serve.go the process.
//
// It hooks in through distribution's public extension points only: the registry
// middleware, RegisterHandler, and commands of our own around NewRegistry and
// MarkAndSweep. Take it out, and the registry still holds every byte.
//
// # Guarantees
//
// A push, tag or deletion goes to the registry's storage first. If it cannot be recorded then,
// it is either refused with 503 (Reject), or noted durably in the registry's blob storage and
// recorded as soon as the store is back (Defer).
//
// # Caveats
//
// distribution keeps its health checks and handlers in globals: a process can
// run one Registry.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/distribution/distribution/v3"
	middleware "github.com/distribution/distribution/v3/registry/middleware/registry"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"

	"tallyman/registry/logging"
	"tallyman/registry/tracker"
)

// middlewareName is the middleware's name in distribution's configuration, where Serve puts
// it.
const middlewareName = "imageapi"

// trackerOption is the option of the middleware entry with the newTracker.
const trackerOption = "tracker"

// rulesOption is that with the tagRules.
const rulesOption = "rules"

// wrappedOption is that with a func(distribution.Namespace), which gets the namespace of the middleware.
const wrappedOption = "wrapped"

// catalogOption is true if the catalog is that of the records.
const catalogOption = "catalog"

// newTracker makes the Tracker of the registry, which distribution makes.
type newTracker func(inner distribution.Namespace, d driver.StorageDriver) *tracker.Tracker

var registerMiddleware = sync.OnceValue(func() error {
	return middleware.Register(middlewareName, newNamespace)
})

// newNamespace is the middleware's constructor, which distribution calls once.
func newNamespace(_ context.Context, inner distribution.Namespace, d driver.StorageDriver, options map[string]any) (distribution.Namespace, error) {
	construct, ok := options[trackerOption].(newTracker)
	if !ok {
		return nil, errors.New("the imageapi middleware adds itself; remove it from middleware.registry")
	}
	enumerator, canEnumerate := inner.(distribution.RepositoryEnumerator)
	remover, canRemove := inner.(distribution.RepositoryRemover)
	if !canEnumerate || !canRemove {
		return nil, fmt.Errorf("registry %T can neither be enumerated nor have repositories removed", inner)
	}
	rules, _ := options[rulesOption].(tagRules) // there may be none
	recorded, _ := options[catalogOption].(bool)
	n := namespace{Namespace: inner, tracker: construct(inner, d), rules: rules, recordedCatalog: recorded}
	if n.tracker.PullThrough() {
		n.rules = nil // its tags are those of another registry
	}
	if wrapped, ok := options[wrappedOption].(func(distribution.Namespace)); ok {
		wrapped(n)
	}
	return struct {
		namespace
		distribution.RepositoryEnumerator
		distribution.RepositoryRemover
	}{n, enumerator, remover}, nil
}

// namespace is the registry with our repositories.
type namespace struct {
	distribution.Namespace
	tracker *tracker.Tracker
	rules   tagRules
	// recordedCatalog has the catalog come from the records.
	recordedCatalog bool
}

// Repositories implements distribution.Namespace, from the records if that is configured and they are
// complete. distribution walks over the storage.
func (n namespace) Repositories(ctx context.Context, repos []string, last string) (int, error) {
	if !n.recordedCatalog || len(repos) == 0 || !n.tracker.HasAllTags(ctx) {
		return n.Namespace.Repositories(ctx, repos, last)
	}
	names, more, err := n.tracker.Catalog().Records().RepositoryNames(ctx, len(repos), last)
	if err != nil {
		logging.For(ctx).Debug("repositories not listed from the records", "err", err)
		return n.Namespace.Repositories(ctx, repos, last)
	}
	copy(repos, names)
	if !more {
		err = io.EOF
	}
	return len(names), err
}

// Repository implements distribution.Namespace.
func (n namespace) Repository(ctx context.Context, name reference.Named) (distribution.Repository, error) {
	inner, err := n.Namespace.Repository(ctx, name)
	if err != nil {
		return nil, err
	}
	return &repository{Repository: inner, tracker: n.tracker, rules: n.rules}, nil
}
