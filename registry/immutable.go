package registry

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TagRule is a rule about tags.
type TagRule struct {
	// Repositories and Tags are patterns of path.Match. A tag that matches one of each is of the
	// rule.
	Repositories, Tags []string
	// Immutable tags stay as they were pushed first: pushes and deletions that would change one are
	// refused.
	Immutable bool
}

// tagRules are the rules of a registry.
type tagRules []TagRule

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := path.Match(pattern, name)
		return ok && err == nil // they are validated with the configuration
	})
}

// immutable returns the first rule that makes a tag immutable, nil if there is none.
func (r tagRules) immutable(repository, tag string) *TagRule {
	for i := range r {
		if r[i].Immutable && matches(r[i].Repositories, repository) && matches(r[i].Tags, tag) {
			return &r[i]
		}
	}
	return nil
}

// concern reports whether a repository has immutable tags.
func (r tagRules) concern(repository string) bool {
	return slices.ContainsFunc(r, func(rule TagRule) bool { return rule.Immutable && matches(rule.Repositories, repository) })
}

// deny makes the error of a change that a rule forbids, and notes it for the answer.
func (rule *TagRule) deny(ctx context.Context, repository, tag string, present digest.Digest) error {
	refusal := errcode.ErrorCodeDenied.WithMessage(fmt.Sprintf(
		"tag %s of %s is immutable by the rule {repositories: %q, tags: %q}: it stays %s", tag, repository, rule.Repositories, rule.Tags, present))
	noteFailure(ctx, refusal)
	return refusal
}

// mayPoint fails if a rule forbids that a tag is made to point to the manifest to, "" for none. The
// registry's link decides.
func (r *repository) mayPoint(ctx context.Context, service distribution.TagService, tag string, to digest.Digest) error {
	rule := r.rules.immutable(r.name(), tag)
	if rule == nil {
		return nil
	}
	present, err := service.Get(ctx, tag)
	var unknown distribution.ErrTagUnknown
	switch {
	case errors.As(err, &unknown):
		return nil
	case err != nil:
		return err
	case present.Digest != to:
		return rule.deny(ctx, r.name(), tag, present.Digest)
	}
	return nil
}

// change wraps a change of a tag, which is called when the lock of the tag is held, with the rules.
// Without the store, replicas do not see each other's locks.
func (r *repository) change(ctx context.Context, service distribution.TagService, tag string, to digest.Digest, change func() error) func() error {
	if r.rules.immutable(r.name(), tag) == nil {
		return change
	}
	return func() error {
		if err := r.tracker.Ready(); err != nil {
			return unavailableFor(ctx)
		}
		if err := r.mayPoint(ctx, service, tag, to); err != nil {
			return err
		}
		return change()
	}
}

// guarded is a ManifestService that does not delete manifests of immutable tags.
type guarded struct {
	distribution.ManifestService
	repository *repository
}

// Delete implements distribution.ManifestService.
func (g guarded) Delete(ctx context.Context, name digest.Digest) error {
	tags, err := g.repository.Repository.Tags(ctx).Lookup(ctx, imagespec.Descriptor{Digest: name})
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if rule := g.repository.rules.immutable(g.repository.name(), tag); rule != nil {
			return rule.deny(ctx, g.repository.name(), tag, name)
		}
	}
	return g.ManifestService.Delete(ctx, name)
}
