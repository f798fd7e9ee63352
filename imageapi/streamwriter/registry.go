package streamwriter

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry changes the registry, under its rules. Its errors are RefusedErrors or Kubernetes ones.
type Registry interface {
	// Tag makes a tag point to a manifest.
	Tag(ctx context.Context, m Move) error
	// Untag deletes a tag. One that the registry does not have is no error.
	Untag(ctx context.Context, m Move) error
	// Add adds a manifest to a repository, with all that it needs, for a user.
	Add(ctx context.Context, user, repository string, name digest.Digest, content Content) error
	// MayUntag fails if the registry does not delete one of some tags of a repository, for any client.
	MayUntag(ctx context.Context, repository string, tags []string) error
}

// Content is where a manifest and its parts come from.
type Content interface {
	// Manifest returns a manifest.
	Manifest(ctx context.Context, name digest.Digest) (mediaType string, content []byte, err error)
	// Blob returns the content of a blob.
	Blob(ctx context.Context, blob imagespec.Descriptor) (io.ReadCloser, error)
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
