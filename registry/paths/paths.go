// Package paths has the places of blobs and links in the registry's storage, as distribution keeps them
// (https://github.com/distribution/distribution/blob/v3.1.2/registry/storage/paths.go).
package paths

import (
	"path"

	"github.com/opencontainers/go-digest"
)

const (
	// Repositories has a directory for each repository.
	Repositories = "/docker/registry/v2/repositories"

	blobs = "/docker/registry/v2/blobs"
)

// Directories of a repository: Layers has links to blobs, and Manifests the tags, and links to manifests.
const (
	Layers    = "_layers"
	Manifests = "_manifests"
)

// Blob returns the file with the content of a blob.
func Blob(d digest.Digest) string {
	return path.Join(blobs, d.Algorithm().String(), d.Encoded()[:2], d.Encoded(), "data")
}

// LayerLink returns the link of a repository to a layer or a configuration.
func LayerLink(repository string, d digest.Digest) string {
	return path.Join(Repositories, repository, Layers, d.Algorithm().String(), d.Encoded(), "link")
}

// Revisions returns the directory of a repository with the links to its manifests.
func Revisions(repository string) string {
	return path.Join(Repositories, repository, Manifests, "revisions")
}

// RevisionLink returns the link of a repository to a manifest.
func RevisionLink(repository string, d digest.Digest) string {
	return path.Join(Revisions(repository), d.Algorithm().String(), d.Encoded(), "link")
}

// Tags returns the directory with the tags of a repository.
func Tags(repository string) string { return path.Join(Repositories, repository, Manifests, "tags") }
