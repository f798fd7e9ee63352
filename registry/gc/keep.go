package gc

import (
	"context"
	"errors"
	"fmt"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"

	"tallyman/registry/journal"
	"tallyman/registry/tracker"
	"tallyman/signatures/manifest"
)

// keptReferrers are the manifests that have no tag and are about one that stays: a
// signature of a tagged image is in use, although nothing points to it.
type keptReferrers map[journal.Entry]bool

// findReferrers reads all manifests, and returns the subject of each, as entries, and the
// referrers that stay if untagged manifests are deleted.
func findReferrers(ctx context.Context, namespace distribution.Namespace) (held map[journal.Entry]bool, kept keptReferrers, err error) {
	held, kept = map[journal.Entry]bool{}, keptReferrers{}
	err = tracker.EachRepository(ctx, namespace, func(name string) error {
		repo, err := tracker.OpenRepository(ctx, namespace, name)
		if err != nil {
			return err
		}
		all, err := readManifests(ctx, namespace, repo)
		if err != nil {
			return err
		}
		for d, m := range all {
			held[journal.Entry{Repository: name, Digest: d, Subject: m.Subject}] = true
		}
		tagged, err := taggedManifests(ctx, repo)
		if err != nil {
			return err
		}
		for d := range referrersOf(all, tagged) {
			kept[journal.Entry{Repository: name, Digest: d}] = true
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list the manifests: %w", err)
	}
	return held, kept, nil
}

// readManifests reads all manifests of a repository. One that cannot be read is an error, because
// it may refer to others, or be about one that stays.
func readManifests(ctx context.Context, n distribution.Namespace, repo distribution.Repository) (map[digest.Digest]*manifest.Manifest, error) {
	service, err := repo.Manifests(ctx)
	if err != nil {
		return nil, err
	}
	all := map[digest.Digest]*manifest.Manifest{}
	return all, tracker.EachManifest(ctx, repo, func(d digest.Digest) error {
		m, err := tracker.ReadManifest(ctx, n, service, d)
		if err != nil {
			return fmt.Errorf("%s@%s cannot be read, so nothing is removed: %w", repo.Named().Name(), d, err)
		}
		if m == nil { // it is gone
			m = &manifest.Manifest{}
		}
		all[d] = m
		return ctx.Err()
	})
}

func taggedManifests(ctx context.Context, repo distribution.Repository) (map[digest.Digest]bool, error) {
	service := repo.Tags(ctx)
	all, err := service.All(ctx)
	var unknown distribution.ErrRepositoryUnknown
	if err != nil && !errors.As(err, &unknown) {
		return nil, err
	}
	tagged := map[digest.Digest]bool{}
	for _, tag := range all {
		current, err := service.Get(ctx, tag)
		var gone distribution.ErrTagUnknown
		if errors.As(err, &gone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%s cannot be read, so nothing is removed: %w", repo.Named().Name(), tag, err)
		}
		tagged[current.Digest] = true
	}
	return tagged, nil
}

// referrersOf returns the manifests that refer to one that stays, or to another such referrer,
// and the manifests that they list. Tagged manifests stay, and those that they list.
func referrersOf(all map[digest.Digest]*manifest.Manifest, tagged map[digest.Digest]bool) map[digest.Digest]bool {
	about := map[digest.Digest][]digest.Digest{}
	for d, m := range all {
		if m.Subject != "" {
			about[m.Subject] = append(about[m.Subject], d)
		}
	}
	stays, kept := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	var visit func(d digest.Digest, asReferrer bool)
	visit = func(d digest.Digest, asReferrer bool) {
		m := all[d]
		if m == nil || stays[d] {
			return
		}
		stays[d] = true
		kept[d] = asReferrer
		for _, child := range m.Manifests {
			visit(child.Digest, asReferrer)
		}
		for _, referrer := range about[d] {
			visit(referrer, true)
		}
	}
	for d := range tagged {
		visit(d, false)
	}
	for d, referrer := range kept {
		if !referrer {
			delete(kept, d)
		}
	}
	return kept
}

// keep returns namespace as it has to look to distribution's garbage collection for
// it to keep the referrers: as if they were tagged.
func (k keptReferrers) keep(namespace distribution.Namespace) distribution.Namespace {
	enumerator, ok := namespace.(distribution.RepositoryEnumerator)
	if !ok {
		return namespace // which the garbage collection will refuse
	}
	return struct {
		keepingNamespace
		distribution.RepositoryEnumerator
	}{keepingNamespace{namespace, k}, enumerator}
}

type keepingNamespace struct {
	distribution.Namespace
	kept keptReferrers
}

// Repository implements distribution.Namespace.
func (n keepingNamespace) Repository(ctx context.Context, name reference.Named) (distribution.Repository, error) {
	repo, err := n.Namespace.Repository(ctx, name)
	return keepingRepository{repo, n.kept}, err
}

type keepingRepository struct {
	distribution.Repository
	kept keptReferrers
}

// Tags implements distribution.Repository.
func (r keepingRepository) Tags(ctx context.Context) distribution.TagService {
	return keepingTags{r.Repository.Tags(ctx), r}
}

type keepingTags struct {
	distribution.TagService
	repository keepingRepository
}

// Lookup implements distribution.TagService. The garbage collection only asks whether
// there are any tags.
func (t keepingTags) Lookup(ctx context.Context, d imagespec.Descriptor) ([]string, error) {
	tags, err := t.TagService.Lookup(ctx, d)
	if err == nil && len(tags) == 0 && t.repository.kept[journal.Entry{Repository: t.repository.Named().Name(), Digest: d.Digest}] {
		return []string{"(referrer)"}, nil
	}
	return tags, err
}
