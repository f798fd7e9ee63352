package streamwriter

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// Registry changes the registry, under its rules. Its errors are RefusedErrors or Kubernetes ones.
type Registry interface {
	// Tag makes a tag point to a manifest.
	Tag(ctx context.Context, m Move) error
	// Untag deletes a tag. One that the registry does not have is no error.
	Untag(ctx context.Context, m Move) error
	// MayUntag fails if the registry does not delete one of some tags of a repository, whoever asks.
	MayUntag(ctx context.Context, repository string, tags []string) error
}

// Move is a change of a tag of the registry.
type Move struct {
	// User is the one who asks for it, for the log.
	User string
	// Repository and Tag are those of the tag.
	Repository, Tag string
	// To is the manifest, and From a repository that holds it. Its content is added to Repository. Untag
	// needs neither.
	To   digest.Digest
	From string
	// Condition fails if the tag is not to be changed. It is called when nobody else can change the tag.
	// Its error is returned.
	Condition func(context.Context) error
}

// RefusedError is the error of a change that the registry does not make.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }
