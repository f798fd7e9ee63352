package resync

import (
	"context"
	"path"
	"strings"

	"tallyman/registry/journal"
	"tallyman/registry/paths"

	"github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"
)

// layout reads repositories in the registry's storage as distribution keeps them there
// (registry/storage/paths.go): a call to list the tags, one for each tag, and one or two to list the
// manifests, instead of several for each manifest.
type layout struct {
	driver  driver.StorageDriver
	limiter *rate.Limiter
}

// newLayout returns the layout of a storage. callsPerSecond is 0 for any number.
func newLayout(d driver.StorageDriver, callsPerSecond int) *layout {
	limit := rate.Inf
	if callsPerSecond > 0 {
		limit = rate.Limit(callsPerSecond)
	}
	return &layout{d, rate.NewLimiter(limit, max(callsPerSecond, 1))}
}

// list returns the names in a directory, none if there is no such directory.
func (l *layout) list(ctx context.Context, directory string) (names []string, err error) {
	if err := l.limiter.Wait(ctx); err != nil {
		return nil, err
	}
	children, err := l.driver.List(ctx, directory)
	for _, child := range children {
		names = append(names, path.Base(child))
	}
	return names, journal.IgnoreMissing(err)
}

// manifests returns the manifests of a repository. A directory without its link is none: that is left
// behind by a deletion where directories are more than parts of names.
func (l *layout) manifests(ctx context.Context, repository string) (found []digest.Digest, err error) {
	root := paths.Revisions(repository)
	if name := l.driver.Name(); name == "filesystem" || name == "inmemory" {
		if err := l.limiter.Wait(ctx); err != nil {
			return nil, err
		}
		err := l.driver.Walk(ctx, root, func(file driver.FileInfo) error {
			if !file.IsDir() && path.Base(file.Path()) == "link" {
				found = appendDigest(found, strings.TrimPrefix(path.Dir(file.Path()), root+"/"))
			}
			return nil
		})
		return found, journal.IgnoreMissing(err)
	}
	algorithms, err := l.list(ctx, root)
	if err != nil {
		return nil, err
	}
	for _, algorithm := range algorithms {
		names, err := l.list(ctx, path.Join(root, algorithm))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			found = appendDigest(found, algorithm+"/"+name)
		}
	}
	return found, nil
}

// appendDigest adds the digest in a path of its algorithm and value, unless that is none.
func appendDigest(to []digest.Digest, relative string) []digest.Digest {
	d := digest.Digest(strings.Replace(relative, "/", ":", 1))
	if d.Validate() != nil {
		return to
	}
	return append(to, d)
}

// holds reads whether a repository holds a manifest.
func (l *layout) holds(ctx context.Context, repository string, d digest.Digest) (bool, error) {
	if err := l.limiter.Wait(ctx); err != nil {
		return false, err
	}
	_, err := l.driver.Stat(ctx, paths.RevisionLink(repository, d))
	return err == nil, journal.IgnoreMissing(err)
}

// tags returns the names of a repository's tags.
func (l *layout) tags(ctx context.Context, repository string) ([]string, error) {
	return l.list(ctx, paths.Tags(repository))
}

// tag reads the manifest that a tag points to, "" for none.
func (l *layout) tag(ctx context.Context, repository, tag string) (digest.Digest, error) {
	if err := l.limiter.Wait(ctx); err != nil {
		return "", err
	}
	content, err := l.driver.GetContent(ctx, path.Join(paths.Tags(repository), tag, "current", "link"))
	if err != nil {
		return "", journal.IgnoreMissing(err)
	}
	return digest.Parse(string(content))
}

// pointsTo reads the manifest that a tag points to, "" also if the repository does not hold that one.
func (l *layout) pointsTo(ctx context.Context, repository, tag string) (digest.Digest, error) {
	to, err := l.tag(ctx, repository, tag)
	if err != nil || to == "" {
		return "", err
	}
	held, err := l.holds(ctx, repository, to)
	if err != nil || !held {
		return "", err
	}
	return to, nil
}
