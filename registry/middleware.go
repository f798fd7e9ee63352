// Package registry is the distribution side of tallyman: the CNCF distribution registry,
// unchanged, with a registry middleware that records pushes, tags and deletions in the Image
// API.
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
	"sync"

	"github.com/distribution/distribution/v3"
	middleware "github.com/distribution/distribution/v3/registry/middleware/registry"
	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/reference"
)

// middlewareName is the middleware's name in distribution's configuration, where Serve puts
// it.
const middlewareName = "imageapi"

// recorderOption is the option of the middleware entry that carries the *Recorder.
const recorderOption = "recorder"

var registerMiddleware = sync.OnceValue(func() error {
	return middleware.Register(middlewareName, newNamespace)
})

// newNamespace is the middleware's constructor, which distribution calls once.
func newNamespace(_ context.Context, inner distribution.Namespace, d driver.StorageDriver, options map[string]any) (distribution.Namespace, error) {
	recorder, ok := options[recorderOption].(*Recorder)
	if !ok {
		return nil, errors.New("the imageapi middleware adds itself; remove it from middleware.registry")
	}
	recorder.attach(inner, d)
	n := namespace{Namespace: inner, recorder: recorder}
	enumerator, canEnumerate := inner.(distribution.RepositoryEnumerator)
	remover, canRemove := inner.(distribution.RepositoryRemover)
	if !canEnumerate || !canRemove {
		return nil, fmt.Errorf("registry %T can neither be enumerated nor have repositories removed", inner)
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
	recorder *Recorder
}

// Repository implements distribution.Namespace.
func (n namespace) Repository(ctx context.Context, name reference.Named) (distribution.Repository, error) {
	inner, err := n.Namespace.Repository(ctx, name)
	if err != nil {
		return nil, err
	}
	return &repository{Repository: inner, recorder: n.recorder}, nil
}
