package registry

import (
	"context"
	"strings"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/opencontainers/go-digest"

	"tallyman/registry/logging"
	"tallyman/registry/tracker"
	"tallyman/signatures/manifest"
)

// repository is a repository whose manifests and tags are recorded.
type repository struct {
	distribution.Repository
	tracker *tracker.Tracker
	rules   tagRules
}

func (r *repository) name() string { return r.Named().Name() }

// Manifests implements distribution.Repository.
func (r *repository) Manifests(ctx context.Context, options ...distribution.ManifestServiceOption) (distribution.ManifestService, error) {
	inner, err := r.Repository.Manifests(ctx, options...)
	if err != nil {
		return nil, err
	}
	m := &manifests{ManifestService: inner, repository: r}
	if enumerator, ok := inner.(distribution.ManifestEnumerator); ok {
		return struct {
			*manifests
			distribution.ManifestEnumerator
		}{m, enumerator}, nil
	}
	return m, nil
}

// Tags implements distribution.Repository.
func (r *repository) Tags(ctx context.Context) distribution.TagService {
	inner := r.Repository.Tags(ctx)
	t := &tags{TagService: inner, repository: r}
	if provider, ok := inner.(distribution.TagManifestsProvider); ok {
		return struct {
			*tags
			distribution.TagManifestsProvider
		}{t, provider}
	}
	return t
}

// Blobs implements distribution.Repository. Only a pull-through cache gets
// manifests before the configs they name.
func (r *repository) Blobs(ctx context.Context) distribution.BlobStore {
	inner := r.Repository.Blobs(ctx)
	if !r.tracker.PullThrough() {
		return pushedBlobs{inner, r.tracker.Configs()}
	}
	return &blobs{BlobStore: inner, repository: r}
}

type manifests struct {
	distribution.ManifestService
	repository *repository
}

// Put implements distribution.ManifestService: first the registry, then the Image.
func (m *manifests) Put(ctx context.Context, content distribution.Manifest, options ...distribution.ManifestServiceOption) (digest.Digest, error) {
	mediaType, payload, err := content.Payload()
	if err != nil {
		return "", err
	}
	verb := "push"
	if m.repository.tracker.PullThrough() {
		verb = "pull" // the cache has fetched it for a client
	}
	push := tracker.Push{Digest: digest.FromBytes(payload)}
	push.Manifest, push.Err = manifest.Parse(mediaType, payload)
	if push.Manifest != nil && len(push.Manifest.Ambiguous) > 0 && m.repository.tracker.RefusesAmbiguous() {
		err := errcode.ErrorCodeManifestInvalid.WithDetail("clients may read these fields differently: " + strings.Join(push.Manifest.Ambiguous, ", "))
		logging.Audit(ctx, verb, m.repository.name(), "", push.Digest.String(), err)
		return "", err
	}
	for _, option := range options {
		if with, ok := option.(distribution.WithTagOption); ok {
			push.Tag = with.Tag
		}
	}
	if push.Tag != "" { // before anything is stored
		if err := m.repository.mayPoint(ctx, m.repository.Repository.Tags(ctx), push.Tag, push.Digest); err != nil {
			logging.Audit(ctx, verb, m.repository.name(), push.Tag, push.Digest.String(), err)
			return "", err
		}
	}
	var stored digest.Digest
	err = m.repository.tracker.Pushed(ctx, m.repository.Repository, push, func() (digest.Digest, error) {
		var err error
		stored, err = m.ManifestService.Put(ctx, content, options...)
		return stored, err
	})
	if push.Manifest != nil {
		noteSubject(ctx, push.Manifest.Subject)
	}
	err = unavailable(ctx, err)
	logging.Audit(ctx, verb, m.repository.name(), push.Tag, stored.String(), err)
	return stored, err
}

// Delete implements distribution.ManifestService.
func (m *manifests) Delete(ctx context.Context, name digest.Digest) error {
	service := m.ManifestService
	if m.repository.rules.concern(m.repository.name()) {
		service = guarded{service, m.repository}
	}
	tags := m.repository.noteTags(ctx, name)
	err := unavailable(ctx, m.repository.tracker.Deleted(ctx, m.repository.name(), service, name, tags))
	logging.Audit(ctx, "delete", m.repository.name(), "", name.String(), err)
	return err
}
